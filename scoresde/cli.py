"""The command line, and :func:`run` for use in Python.

:func:`command` is the entry. It calls :func:`main`, for which Hydra composes the configuration; :func:`run` checks it,
builds its parts and does the task.
"""

import logging
import math
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# modules that need torch are imported inside the functions: --help and a mistyped group answer at once

log = logging.getLogger(__name__)
logging.raiseExceptions = False  # a full disk or a closed pipe is reported once, and not by every line of a log


@hydra.main(config_path="pkg://scoresde.conf", config_name="config", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Does one job; returns the number that :func:`run` returns, for a sweeper, or NaN if a job of a sweep failed.

    A failure outside a sweep ends the program with one message and exit code 1; an interrupt with exit code 130.
    """
    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir).name if hydra_config.mode == RunMode.MULTIRUN else None
    try:
        from .conf import unused

        typed = unused.typed_for(config, hydra_config.overrides.task, sweep and Path(hydra_config.sweep.dir))
        return run(config, dict(hydra_config.runtime.choices), Path(hydra_config.runtime.output_dir), sweep, typed)
    except BrokenPipeError:
        quit_unread()
    except (ValueError, OSError, ImportError, FloatingPointError, OmegaConfBaseException) as error:
        # a mistake of the user's or a fault of the machine: one message on the screen, and the traceback in run.log
        log.debug("%s", traceback.format_exc())
        if not sweep:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        place = Path(hydra_config.runtime.output_dir) / "run.log"
        message = f"error: {type(error).__name__}: {error} (this may be a bug of ours: its traceback is in {place})"
        if out_of_memory(error):
            message = (
                f"error: the memory is too small ({str(error).splitlines()[0]}): choose a smaller task.batch=, "
                f"training.batch=, count=, data.count=, sampler.steps= or network"
            )
        if not sweep:
            sys.exit(message)
        print(message, file=sys.stderr)
    return math.nan  # a failed job of a sweep: the other jobs go on, and the sweep ends with exit code 1


def run(
    cfg: dict | DictConfig,
    choices: dict[str, str] | None = None,
    folder: Path | None = None,
    sweep: str | None = None,
    typed: Any = None,
) -> float | None:
    """Does the task of a configuration, and leaves its results in a folder.

    Arguments:
        cfg: the configuration, as Hydra composes it.
        choices, folder: the choice of each group, by which networks and runs are named, and the folder for results. If
            either is missing, both are those of the Hydra application that calls, and keys of ``cfg`` that are not
            ours are ignored.
        sweep: the name of the sweep that the run belongs to.
        typed: what a user typed (:class:`scoresde.conf.unused.Typed`), of which keys that decide nothing are refused.

    Returns:
        The task's first metric that is a number, other than ``count``; None if there is none.

    Raises:
        ValueError: the configuration has a mistake, or the task cannot do what it asks.
    """
    from .conf import assemble
    from .tasks import Record

    cfg = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    if choices is None or folder is None:
        cfg, choices, folder = of_application(cfg)
    sampled = ("sampler",) if cfg["task"].get("sampler") else ()  # as folders are named in conf/config.yaml
    title = "-".join(choices[key] for key in ("task", "data", "sde", *sampled))
    with Record(folder, cfg, cfg["logger"], title, group=sweep) as record:
        task, job = assemble.prepare(cfg, choices, record, typed)
        metrics = task(job)
        if not isinstance(metrics, dict):
            raise ValueError(f"{type(task).__name__} returned {metrics!r}; a task returns its metrics by name, a dict")
        record.finish(metrics | job.data_metrics)
    numbers = (float(v) for key, v in metrics.items() if key != "count" and isinstance(v, int | float))
    return next(numbers, None)


def of_application(cfg: dict) -> tuple[dict, dict[str, str], Path]:
    """Returns our part of the configuration of a user's Hydra application, the application's choices and its folder.

    Raises:
        ValueError: the call does not come from a Hydra application.
    """
    from .conf.keys import GROUPS, ROOT

    if not HydraConfig.initialized():
        raise ValueError("run(cfg) takes its folder from a Hydra application; type run(cfg, choices, folder)")
    hydra_config = HydraConfig.get()
    ours = {key: value for key, value in cfg.items() if key in ROOT or key in GROUPS}
    if yours := [key for key in cfg if key not in ours]:
        log.info("ignored, since they are no keys of scoresde: %s", ", ".join(yours))
    return ours, dict(hydra_config.runtime.choices), Path(hydra_config.runtime.output_dir)


def out_of_memory(error: Exception) -> bool:
    """Returns whether an error means too little memory, for which numpy and torch have several exceptions."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or named


def quit_unread() -> NoReturn:
    """Exits quietly when the output pipe is closed, as by ``python run.py --help | head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's flush at the exit would fail
    sys.exit(141)  # 128 + SIGPIPE, as of a program that the signal ends


def command() -> None:
    """Runs the command line that is in ``sys.argv``: the entry of ``run.py``, ``python -m scoresde`` and the script
    ``scoresde``.
    """
    # Under GNU's OpenMP, which prefers GOMP_SPINCOUNT to the policy, threads that wait for work spin for some
    # microseconds and then sleep: those that spin longer take the processor from other programs, those that sleep at
    # once are late (docs/results.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from .conf.command_line import readable

    whole = "HYDRA_FULL_ERROR" in os.environ  # a user who asks for Hydra's own messages gets them
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints its message itself, with advice that misleads
    try:
        try:
            if sys.argv[1:2] == ["ls"]:
                from .listing import show

                print(show(sys.argv[2:]))
                return
            sys.argv[1:] = readable(sys.argv[1:])
        except ValueError as error:
            sys.exit(f"error: {error}")
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        quit_unread()
    except (HydraException, OmegaConfBaseException) as error:
        from .conf.typos import explained

        if whole:
            raise
        sys.exit(f"error: {explained(sys.argv[1:], error)}")
    except OSError as error:
        sys.exit(f"error: {error}")
    finally:
        if not whole:  # programs that this one starts are asked anew
            os.environ.pop("HYDRA_FULL_ERROR", None)
