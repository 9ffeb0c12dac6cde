"""The files of a run's folder, and the only module that calls Weights & Biases.

metrics.jsonl    one line per event, written during the run; lines of earlier runs in the folder stay above
metrics.json     one flat object, written at the end
*.npz, *.png     arrays and pictures
"""

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


class Record:
    """Writes a run's results; a context manager that writes the reason to metrics.jsonl if the run fails.

    Arguments:
        folder: the run's own folder; made if it is absent.
        config: the resolved configuration, for the logger.
        logger: the logger's keys: ``name``, none or wandb, and for wandb also ``project``, ``entity`` and ``mode``.
        title: the run's name in the logger.
        group: the sweep it belongs to, or None.
    """

    def __init__(
        self,
        folder: Path | str,
        config: dict | None = None,
        logger: dict | None = None,
        title: str = "",
        group: str | None = None,
    ):
        self.folder = Path(folder)
        self.pictures: list[Path] = []
        self.started = time.monotonic()
        self.wandb = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "metrics.json").unlink(missing_ok=True)  # an earlier run in this folder left it
            self.events = (self.folder / "metrics.jsonl").open("a", buffering=1)
            os.utime(self.folder / "metrics.jsonl")  # a sweep's summary recognises its jobs by this time
        except OSError as error:
            raise self.unwritable(error) from error
        if logger and logger["name"] == "wandb":
            self.wandb = start_wandb(self.folder, config or {}, logger, title, group)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
            return
        self.close(failed=f"{type(error).__name__}: {error}")
        full = isinstance(error, OSError) and error.errno and not error.filename  # a full disk names no file
        if full and not isinstance(error, BrokenPipeError):
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> OSError:
        """Returns an error that names the run's folder and what to type."""
        return OSError(
            f"the run's folder {self.folder} cannot be written ({error.strerror or error}); "
            f"choose another with hydra.run.dir=FOLDER"
        )

    def event(self, values: dict[str, Any]) -> None:
        """Writes one line of metrics.jsonl."""
        try:
            self.events.write(json.dumps({"seconds": round(time.monotonic() - self.started, 3), **values}) + "\n")
        except OSError as error:
            raise self.unwritable(error) from error
        if self.wandb:
            self.wandb.log(values)

    def arrays(self, name: str, **arrays: np.ndarray) -> Path:
        """Writes arrays to NAME.npz and returns its path."""
        path = self.folder / f"{name}.npz"
        try:
            np.savez(path, **arrays)
        except OSError as error:
            raise self.unwritable(error) from error
        return path

    def picture(self, path: Path) -> None:
        """Notes a picture that was drawn in the folder, to be printed at the end and logged."""
        self.pictures.append(path)

    def path(self, name: str) -> Path:
        """Returns the path of a file in the run's folder."""
        return self.folder / name

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, and prints the table and the paths of the pictures, or the folder's without any."""
        # unknown values, such as the error bar of one point, are left out, so that readers get finite numbers
        metrics = {
            k: v for k, v in metrics.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))
        }
        partial = self.folder / ".metrics.json"
        try:
            partial.write_text(json.dumps(metrics, indent=1) + "\n")
            partial.replace(self.folder / "metrics.json")
        except OSError as error:
            raise self.unwritable(error) from error
        print("\n" + table(metrics) + "\n")
        for path in self.pictures or [self.folder]:
            print(os.path.relpath(path))
        if self.wandb:
            self.wandb.summary.update(metrics)
            import wandb

            self.wandb.log({path.stem: wandb.Image(str(path)) for path in self.pictures})

    def close(self, failed: str | None = None) -> None:
        """Closes the record.

        Arguments:
            failed: the reason, if the run failed.
        """
        if failed is not None:
            try:
                self.event({"error": failed})
            except OSError:
                log.debug("the error could not be noted in %s either", self.folder)
        self.events.close()
        if self.wandb:
            self.wandb.finish(exit_code=0 if failed is None else 1)


def table(metrics: dict[str, Any]) -> str:
    """Returns the metrics as text in two columns."""
    width = max(map(len, metrics))
    return "\n".join(f"  {key:<{width}}  {show(value)}" for key, value in metrics.items())


def show(value: Any) -> str:
    """Returns a value as tables show it."""
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def start_wandb(folder: Path, config: dict, logger: dict, title: str, group: str | None):
    """Starts a run of Weights & Biases in the mode of the logger's keys.

    The mode ``auto`` stands for WANDB_MODE if it is set, else for online if the user is logged in, else for offline.
    """
    try:
        import wandb
    except ImportError:
        raise ImportError("logger=wandb needs the package wandb: pip install wandb, or leave logger=none") from None
    mode = logger["mode"]
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    return wandb.init(
        project=logger["project"],
        entity=logger["entity"],
        mode=mode,
        dir=str(folder),
        config=config,
        name=title,
        group=group,
        settings=wandb.Settings(silent=True),
    )
