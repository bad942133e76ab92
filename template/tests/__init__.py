"""Ours: the life cycle, on a slice of the project's own data. Yours are in tests/project/."""
