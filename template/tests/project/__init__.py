"""Yours: tests of what is in project/."""
