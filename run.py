"""Runs the command line of a checkout, ``python run.py --help``; it is written in :mod:`scoresde.cli`."""

from scoresde.cli import command

if __name__ == "__main__":
    command()
else:  # imported as run, the former name of scoresde.cli
    from scoresde.checkout import former

    former(__name__)
