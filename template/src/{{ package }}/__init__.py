"""The life cycle of one model, a folder a phase: see README.md for the order."""
