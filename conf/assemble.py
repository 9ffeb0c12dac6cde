"""From a resolved configuration to a task and its job: what a run checks and builds before it begins."""

import logging
from pathlib import Path

import torch

from scoresde.data import Conditional, Data
from scoresde.tasks import Job, Record, Task

from . import compatibility, density, schema, unused
from .identity import tree
from .networks import Networks
from .values import is_blind, nodes, settle

log = logging.getLogger(__name__)


def prepare(cfg: dict, choices: dict[str, str], record: Record, typed: unused.Typed | None = None) -> tuple[Task, Job]:
    """Returns the task of a run, and its job. Nothing is trained yet.

    Arguments:
        cfg: the configuration, resolved, in plain values.
        choices: the choice of each group, by which the networks' folders are named.
        record: receives the events of trainings, and what the task leaves.
        typed: what the user typed, of which keys that decide nothing are refused; None for a configuration that
            nobody typed.

    Raises:
        ValueError: a key, or a combination of keys, that cannot work.
        OSError, ImportError: the data, or a file of points or conditions, cannot be read.
    """
    # every value against its constructor's annotation
    cfg = schema.with_short_targets(cfg)
    schema.check_root(cfg)
    for key in nodes(cfg):
        schema.check(cfg[key], key, unsettled=key != "data")
    device = choose_device(cfg["device"], cfg["dtype"])
    if cfg["threads"]:
        torch.set_num_threads(cfg["threads"])
    # the data, and the values of ``auto`` that follow from them
    data = build_data(cfg)
    if description := data.describe():
        log.info("data: %s", description)
    cfg = settle(cfg, data, device)
    # the other parts, and whether they fit together
    sde, task = (schema.build(cfg[key], key, cfg["typed"]) for key in ("sde", "task"))
    if typed:
        unused.refuse(typed, cfg, choices, task, data)
    asked = ask(cfg, data, task)
    compatibility.densities(cfg, task)
    compatibility.dequantisation(task, data)
    task.check(sde, asked)
    data_metrics = density.check(task, sde, asked)
    density.constant_conditions(data)
    compatibility.detail(task, sde, data)
    compatibility.start(task, sde, data)
    name = "-".join(choices[key] for key in ("data", "sde", "model"))
    networks = Networks(cfg, sde, data, asked, task, record, name)
    return task, Job(sde, asked, record, networks, data_metrics)


def build_data(cfg: dict) -> Data:
    """Returns the data set: of p(x | y) if ``data.condition`` names a y, or if the run has a classifier, which needs
    the labels.

    Raises:
        ValueError, OSError, ImportError: the data cannot be read or have no such y, or the run has a classifier and y
            is no class.
    """
    key = cfg["data"].get("condition")
    if key is None and cfg.get("classifier"):
        key = "labels"
    node = cfg["data"]
    if node.get("cache") == schema.AUTO:
        node = node | {"cache": str(Path(cfg["store"]) / "pixels")}
    data = schema.build(node, "data")
    if key is None:
        return data
    data = Conditional(data, key)
    if cfg.get("classifier") and not data.condition.classes:
        raise ValueError(
            f"classifier: a classifier tells classes apart, and data.condition={key} are numbers; type "
            f"data.condition=labels, or leave the classifier out"
        )
    return data


def ask(cfg: dict, data: Data, task: Task) -> Data:
    """Returns the data with the y that ``condition=`` names; data of p(x), which have none, as they are.

    Raises:
        ValueError: the data have no such y, the task or the network does not work with it, or ``guidance=`` is given
            for data of p(x).
        FileNotFoundError: ``condition=`` names a file that does not exist.
    """
    value, guidance = cfg["condition"], cfg["guidance"]
    if data.condition is None:
        for key, given, none in (("condition", value, None), ("guidance", guidance, 1)):
            if given != none:
                raise ValueError(
                    f"{key}={given}: these are data of p(x) and have no y; type data.condition=labels, or "
                    f"data.condition=[COLUMN], to learn p(x | y)"
                )
        return data
    if task.conditions == "none":
        raise ValueError(
            f"{type(task).__name__} compares networks of p(x) and takes none of p(x | y); leave data.condition out"
        )
    refuse_other_width(cfg, data)
    if value is not None:
        data = data.asking(value)
    condition = data.condition
    if task.conditions == "one" and (condition.single is None or not condition.classes):
        name = type(task).__name__
        raise ValueError(
            f"{name} works on p(x | y) of one class: type condition=LABEL"
            if condition.classes
            else f"{name} works on p(x | y) of one class, and data.condition are numbers: leave data.condition out; "
            f"task=sample and task=likelihood take numbers"
        )
    return data


def refuse_other_width(cfg: dict, data: Data) -> None:
    """Raises a ValueError for a network that should take the data's y, and takes none or one of another length."""
    if is_blind(cfg, data) or compatibility.is_exact(cfg):
        return
    widths = {node["condition"] for node in tree(cfg["model"]) if "condition" in node}
    if widths != {data.condition.width}:
        raise ValueError(
            f"model.condition={', '.join(map(str, widths)) or 'absent'} is not the length of y, "
            f"{data.condition.width}; type model.condition=auto, or leave data.condition out"
        )


def choose_device(device: str, dtype: str) -> str:
    """Returns the device to run on, for ``auto`` the best one present that has the dtype; raises a ValueError for one
    that cannot run.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there and not (name == "mps" and dtype == "float64"))
    if not present[device]:
        raise ValueError(f"device={device} is not there; type device=cpu, or device=auto for the best that is")
    if device == "mps" and dtype == "float64":
        raise ValueError("device=mps has no float64; type dtype=float32 or device=cpu")
    return device
