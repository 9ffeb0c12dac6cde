"""The configuration: one folder a group, one yaml a choice. A package, so that
Hydra finds it as ``pkg://scoresde.conf``.
"""

if __name__ == "conf":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

from . import program  # noqa: F401 (the help's ${program:})
