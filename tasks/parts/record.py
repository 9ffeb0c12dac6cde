"""The files of a run's folder, and the copy of its events, metrics and pictures in Weights & Biases.

No other module imports wandb.

metrics.jsonl    one line per event, written during the run; a later run in the same folder appends
metrics.json     one flat object, written at the end of a run that did not fail
*.npz, *.png     arrays and pictures
"""

import json
import logging
import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import summary

log = logging.getLogger(__name__)


class Record:
    """Writes a run's results; a context manager that writes the error to metrics.jsonl if the run fails.

    Methods that write raise an OSError that names the folder if it cannot be written.

    Arguments:
        folder: the run's own folder; made if it is absent.
        config: the resolved configuration, for the logger.
        logger: the node of the config group ``logger``: ``name`` is none or wandb; wandb has project, entity and mode
            too.
        title: the run's name in the logger.
        group: the name of the sweep that the run belongs to, or None.

    Raises:
        OSError: the folder cannot be written.
        ImportError: the logger is wandb, which is not installed.
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
        self.wandb, self.offline = None, None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "metrics.json").unlink(missing_ok=True)  # an earlier run in this folder left it
            self.events = (self.folder / "metrics.jsonl").open("a", buffering=1)
            if group is not None:
                summary.join(self.folder)
        except OSError as error:
            raise self.unwritable(error) from error
        if logger and logger["name"] == "wandb":
            self.wandb, self.offline = start_wandb(self.folder, config or {}, logger, title, group)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
            return
        self.close(failed=f"{type(error).__name__}: {error}")
        # a system's OSError without a file's name is taken for a full disk
        full = isinstance(error, OSError) and error.errno and not error.filename
        if full and not isinstance(error, BrokenPipeError):
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> OSError:
        """Returns an error that names the run's folder and what to type."""
        return OSError(
            f"the run's folder {self.folder} cannot be written ({error.strerror or error}); "
            f"choose another with hydra.run.dir=FOLDER"
        )

    def event(self, values: dict[str, Any]) -> None:
        """Writes the values as one line of metrics.jsonl, with the seconds since the start, and to the logger."""
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
        """Adds the path of a picture, or of another file to show, to those that :meth:`finish` prints; the caller has
        written it.
        """
        self.pictures.append(path)

    def path(self, name: str) -> Path:
        """Returns the path of a file in the run's folder."""
        return self.folder / name

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, and prints the last lines of a run: the metrics, and the paths of the pictures. The log
        file gets these lines too.

        A run without pictures prints the path of its folder. Metrics that are None, NaN or infinite are left out.
        """
        # such as the error bar of one point: readers get finite numbers only
        metrics = {
            k: v for k, v in metrics.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))
        }
        partial = self.folder / ".metrics.json"  # renamed when complete, so that no reader meets half a file
        try:
            partial.write_text(json.dumps(metrics, indent=1) + "\n")
            partial.replace(self.folder / "metrics.json")
        except OSError as error:
            raise self.unwritable(error) from error
        self.say_offline()
        paths = "\n".join(os.path.relpath(path) for path in self.pictures or [self.folder])
        print(f"\n{table(metrics)}\n\n{paths}")
        log.debug("results:\n%s\n%s", table(metrics), paths)
        if self.wandb:
            self.wandb.summary.update(metrics)
            import wandb

            # task=export adds the path of a network, which is no picture
            images = {path.stem: wandb.Image(str(path)) for path in self.pictures if path.suffix == ".png"}
            self.wandb.log(images)

    def say_offline(self) -> None:
        """Logs where an offline run of the logger lies, and how to upload it."""
        if self.offline is not None:
            path = os.path.relpath(self.offline)
            log.info("wandb is offline: the run lies in %s; type wandb sync %s to upload it", path, shlex.quote(path))

    def close(self, failed: str | None = None) -> None:
        """Closes metrics.jsonl and ends the logger's run.

        Arguments:
            failed: the reason, if the run failed; written as the last event.
        """
        if failed is not None:
            try:
                self.event({"error": failed})
            except OSError:
                log.debug("the error could not be noted in %s either", self.folder)
            self.say_offline()
        self.events.close()
        if self.wandb:
            self.wandb.finish(exit_code=0 if failed is None else 1)


def table(metrics: dict[str, Any]) -> str:
    """Returns the metrics as text in two columns."""
    width = max(map(len, metrics), default=0)
    return "\n".join(f"  {key:<{width}}  {show(value)}" for key, value in metrics.items())


def show(value: Any) -> str:
    """Returns a value as tables show it."""
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def start_wandb(folder: Path, config: dict, logger: dict, title: str, group: str | None) -> tuple[Any, Path | None]:
    """Starts a run of Weights & Biases. Returns it, and the folder that an offline run is kept in.

    The mode ``auto`` is WANDB_MODE if that is set; else online if the user is logged in, and offline if not.
    """
    try:
        import wandb
    except ImportError:
        raise ImportError("logger=wandb needs the package wandb: pip install wandb, or leave logger=none") from None
    mode = logger["mode"]
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    run = wandb.init(
        project=logger["project"],
        entity=logger["entity"],
        mode=mode,
        dir=str(folder),
        config=config,
        name=title,
        group=group,
        settings=wandb.Settings(silent=True),
    )
    return run, Path(run.dir).parent if mode == "offline" else None
