"""The configuration: one folder a group, one yaml a choice. A package, so that Hydra finds it as
``pkg://scoresde.conf``.
"""

if __name__ == "conf":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def program() -> str:
    """Returns what a user types to start this program, for the help: ``python run.py``, ``scoresde``, ..."""
    name = Path(sys.argv[0]).name
    if name == "__main__.py":
        return "python -m scoresde"
    return f"python {name}" if name.endswith(".py") else Path(name).stem


def sampler_name(_root_: DictConfig) -> str:
    """Returns the end of a run's name, ``-pc``, for a task that draws by the run's sampler; nothing for others."""
    task = _root_._get_node("task")  # not its value: nothing is resolved to name a folder
    drawn = task is None or "sampler" in task and not task._get_node("sampler")._is_none()
    return f"-{HydraConfig.get().runtime.choices.sampler}" if drawn else ""


OmegaConf.register_new_resolver("program", program, replace=True)
OmegaConf.register_new_resolver("sampler_name", sampler_name, replace=True)
