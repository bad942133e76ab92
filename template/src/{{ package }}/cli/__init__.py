"""The commands, a verb each; the Makefile calls them."""

from .app import main

__all__ = ["main"]
