"""The command line by ``python -m scoresde``."""

from .cli import command

command()
