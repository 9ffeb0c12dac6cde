"""Hydra's callback before a run begins, and before and after a sweep."""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class SweepSummary(Callback):
    """Refuses a folder that cannot be written or that another sweep uses; ends a sweep with a table of its jobs."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        writable(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        writable(config, "sweep")
        self.lock = sweep_lock(Path(config.hydra.sweep.dir))
        self.started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from scoresde.tasks.parts.summary import summarise  # matplotlib is loaded when a sweep has ended, not by --help

        if not summarise(Path(config.hydra.sweep.dir), since=self.started):
            raise SystemExit(1)


def sweep_lock(folder: Path) -> FileLock:
    """Returns a lock on a sweep's folder, or ends the program: jobs of two sweeps would share folders.

    The operating system frees the lock when its holder dies.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        reason = "is another sweep's, which still runs"
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
    print(
        f"error: hydra.sweep.dir={folder} {reason}; choose another folder with hydra.sweep.dir=FOLDER", file=sys.stderr
    )
    raise SystemExit(1)


def writable(config: DictConfig, mode: str) -> None:
    """Makes the folder and a file in it, or ends the program with one message: Hydra would end it with a traceback.

    Only the part of the name before an interpolation is checked: the rest is decided when the job begins.
    """
    key = f"hydra.{mode}.dir"
    fixed, interpolation, _ = OmegaConf.to_container(config.hydra[mode], resolve=False)["dir"].partition("${")
    folder = Path(fixed).parent if interpolation and not fixed.endswith("/") else Path(fixed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name that another run could take
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        print(
            f"error: {key}={folder} cannot be written ({error.strerror}); choose another folder with {key}=FOLDER",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
