"""What Hydra calls when a sweep has ended."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepSummary(Callback):
    """One table over all jobs of a sweep, ``summary.csv`` and ``summary.png`` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from tasks.summary import summarise  # matplotlib is loaded when a sweep has ended, not by --help

        summarise(Path(config.hydra.sweep.dir))
