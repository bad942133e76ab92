"""Versions, and the moves between environments: history, gates, promotion."""
