"""The life cycle of one model, a module a step: see README.md for the order."""
