"""The name by which the command line was started, as the help shows it."""

import sys
from pathlib import Path

from omegaconf import OmegaConf


def program() -> str:
    """Returns what a user types to start this program: ``python run.py``, ``scoresde`` or ``python -m scoresde``."""
    name = Path(sys.argv[0]).name
    return {"run.py": "python run.py", "__main__.py": "python -m scoresde"}.get(name, Path(name).stem)


OmegaConf.register_new_resolver("program", program, replace=True)
