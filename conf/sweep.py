"""A Hydra callback: checks the output folder before a run or a sweep, and summarises a sweep at its end.

Hydra turns an Exception of a callback into a warning. The functions here therefore raise SystemExit, which is not an
Exception.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class SweepSummary(Callback):
    """Checks the output folder of a run or a sweep, and summarises a sweep.

    Before a run or a sweep it ends the program if the folder cannot be written; before a sweep, also if another sweep
    uses it. After a sweep it prints a table of the jobs, writes it as summary.csv and summary.png, and exits with
    status 1 if a job failed (it left no metrics.json) or none wrote anything.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        require_writable(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        require_writable(config, "sweep")
        self.lock = sweep_lock(Path(config.hydra.sweep.dir))  # held until the process ends
        from scoresde.tasks.parts.summary import begin  # torch is loaded when a sweep begins, not by --help

        try:
            begin(Path(config.hydra.sweep.dir))
        except OSError as error:
            refuse("hydra.sweep.dir", Path(config.hydra.sweep.dir), f"cannot be written ({error.strerror})")

    def __getstate__(self) -> dict:
        """Leaves the lock out: a launcher that starts processes copies the callback, and the lock is this process's."""
        return {key: value for key, value in vars(self).items() if key != "lock"}

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from scoresde.tasks.parts.summary import summarise

        if not summarise(Path(config.hydra.sweep.dir)):
            raise SystemExit(1)


def sweep_lock(folder: Path) -> FileLock:
    """Creates and locks a sweep's folder; returns the lock, which the operating system frees when the process ends.

    Ends the program if another sweep holds it, because the jobs of both would write to the same folders, or if the
    folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        refuse("hydra.sweep.dir", folder, "is in use by another sweep")
    except OSError as error:
        refuse("hydra.sweep.dir", folder, f"cannot be written ({error.strerror})")


def require_writable(config: DictConfig, mode: str) -> None:
    """Checks that the start of ``hydra.run.dir`` or ``hydra.sweep.dir`` can be written; on failure prints one message
    and exits.

    Without this check Hydra would print a traceback. The check creates the folders of the path's fixed start, those
    before the first ${...}, and writes a temporary file there. Before a run Hydra cannot resolve the rest yet; the rest
    of a sweep's path is created by :func:`sweep_lock`.

    Arguments:
        mode: ``run`` or ``sweep``.
    """
    key = f"hydra.{mode}.dir"
    fixed, interpolation, _ = OmegaConf.to_container(config.hydra[mode], resolve=False)["dir"].partition("${")
    folder = Path(fixed).parent if interpolation and not fixed.endswith("/") else Path(fixed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name, so runs cannot collide
            file.write(b"\0" * 4096)  # a full disk fails only when data are written
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        refuse(key, folder, f"cannot be written ({error.strerror})")


def refuse(key: str, folder: Path, reason: str) -> NoReturn:
    """Prints why the folder of a key cannot be used, and ends the program with status 1."""
    print(f"error: {key}={folder} {reason}; choose another folder with {key}=FOLDER", file=sys.stderr)
    raise SystemExit(1) from None
