"""The command line in a checkout, ``python run.py --help``: all of it is :mod:`scoresde.cli`."""

from scoresde.cli import command

if __name__ == "__main__":
    command()
else:
    from scoresde.checkout import former

    former(__name__)
