"""Lets `python -m` run the commands."""

from .cli import main

main()
