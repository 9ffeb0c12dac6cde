"""The configuration: one folder a group, one yaml a choice. A package, so that Hydra finds it as
``pkg://scoresde.conf``.
"""

if __name__ == "conf":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

import sys
from pathlib import Path

from omegaconf import OmegaConf


def program() -> str:
    """Returns what a user types to start this program, for the help: ``python run.py``, ``scoresde``, ..."""
    name = Path(sys.argv[0]).name
    if name == "__main__.py":
        return "python -m scoresde"
    return f"python {name}" if name.endswith(".py") else Path(name).stem


OmegaConf.register_new_resolver("program", program, replace=True)
