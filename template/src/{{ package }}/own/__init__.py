"""`make own`: writes project/ and tests/project/ for a table.

It is part of the project, and not of the template, since a table comes after the copy: reading it
takes this project's sources, contract and environment. What it wrote does not need it. So whoever
has their table may delete this folder, cli/own.py and its two mentions in cli/app.py.
"""
