"""Ours, of the template: these run inside a rendered project, as its tests/engine."""
