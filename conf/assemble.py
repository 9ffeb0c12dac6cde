"""From the configuration to a run's data and its settled keys: what waited for the data is filled in and checked."""

import logging
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scoresde.data import Conditional, Data
from scoresde.likelihood import UniformDequantisation
from scoresde.models import Parameterisation
from scoresde.sde_lib.noise import BLOCK

from . import schema
from .identity import tree

log = logging.getLogger(__name__)

NODES = tuple(key for key in schema.GROUPS if key != "logger")


def build_data(cfg: dict) -> Data:
    """The data set, of p(x | y) where ``data.condition`` names a y; a classifier wants labels without being told so."""
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


def blind(cfg: dict, data: Data) -> bool:
    """Whether the network takes no y: there is none, or a classifier knows it."""
    return data.condition is None or bool(cfg.get("classifier"))


def ask(cfg: dict, data: Data) -> Data:
    """The data with ``condition=``, and whether the task can go on with it."""
    value, guidance = cfg["condition"], cfg["guidance"]
    if data.condition is None:
        for key, given, none in (("condition", value, None), ("guidance", guidance, 1)):
            if given != none:
                raise ValueError(
                    f"{key}={given}: these are data of p(x) and have no y; type data.condition=labels, or "
                    f"data.condition=[COLUMN], to learn p(x | y)"
                )
        return data
    task = cfg["task"]
    target = schema.locate(task["_target_"], "task")
    for key in ("trainers", "shares", "snapshots", "other", "models"):
        if task.get(key) is not None:
            raise ValueError(
                f"this task has several networks (task.{key}) and takes none of p(x | y); leave data.condition out"
            )
    if value is not None and getattr(target, "classifies", False):
        raise ValueError(f"condition={value}: a classifier is trained on all labels; leave condition out")
    if not blind(cfg, data) and "sde" not in cfg["model"]:
        widths = {node["condition"] for node in tree(cfg["model"]) if "condition" in node}
        if widths != {data.condition.width}:
            raise ValueError(
                f"model.condition={', '.join(map(str, widths)) or 'absent'} is not the length of y, "
                f"{data.condition.width}; type model.condition=auto, or leave data.condition out"
            )
    if value is not None:
        data = data.asking(value)
    known = data.condition
    if getattr(target, "conditions", False):
        return data
    if known.alone is None or not known.classes:
        raise ValueError(
            f"this task, {target.__name__}, is for one law, "
            + (
                "that of one label: type condition=LABEL"
                if known.classes
                else "and does not know which numbers y each example has; task=sample and task=likelihood do"
            )
        )
    return data


def settle(cfg: dict, data: Any, device: str) -> dict:
    """Fills in what waited for the data, and checks the whole against its constructors."""
    values = {
        "shape": list(data.shape),
        "components": data.components(),
        "labels": data.labels(),
        "moments": data.moments,  # functions: most runs need none
        "reference": lambda: data.encode(data.dequantise(data.train[:20_000], None)),
        "condition": 0 if blind(cfg, data) else data.condition.width,
        "evidence": lambda: getattr(data, "evidence", None),
        "classes": classes_of_networks(cfg, data),
        "last": "flow" if len(data.shape) == 1 else "tweedie",  # pictures look sharper so; see samplers/last.py
        "drop": 0.1 if data.condition and data.condition.classes and not blind(cfg, data) else 0.0,
        "sigma_data": round(data.std, 6),
        "sigma_max": cache(lambda: largest_noise(data)),
        "levels.count": steps_of_chain(cfg["sde"]),
        "batch": batch_of(data.shape, device),
        "device": device,
        "bins": bins_of(data),
        "pixel_features": lambda: frequencies_of(data),
        "observation": observation_of(data),
    }
    values["pixel_unit"] = lambda: unit_of(
        schema.build(schema.settle({"row": cfg["parameterisation"]}, data.shape, values)["row"], "parameterisation")
    )
    if values["components"] is None:
        for key, node, remedy in (
            ("model=oracle", cfg["model"], "model=mlp or model=unet"),
            ("training/loss=explicit", cfg["training"]["loss"].get("truth", {}), "training/loss=likelihood"),
        ):
            if node.get("components") == schema.AUTO:
                raise ValueError(
                    f"{key} needs data whose density is a mixture, data=mixture or data=8gaussians; "
                    f"for other data choose {remedy}"
                )
    if not 0 < values["sigma_data"] < math.inf:
        found = (
            "all training examples are equal"
            if values["sigma_data"] == 0
            else f"the training data have the std {data.std:.3g} in model units, which float32 does not hold"
        )
        raise ValueError(
            f"{found}: nothing can be learnt from them; look at the file, or at data.limit, data.count and "
            f"data.test_fraction"
        )
    if data.levels is None and "dequantisation" in cfg["task"]:
        asked = schema.build(cfg["task"]["dequantisation"], "dequantisation")
        if asked != UniformDequantisation():
            raise ValueError(
                f"dequantisation, here {asked.title} with samples={asked.samples}, is for integers, and these data are "
                f"continuous; leave dequantisation out, or type data.levels=L for a file of integers 0 ... L-1"
            )
    if data.condition is not None and "truth" in cfg["training"]["loss"]:
        raise ValueError(
            "training/loss=explicit compares with the score of p(x), and data.condition= asks for p(x | y); type "
            "training/loss=likelihood"
        )
    if "conditioner" in cfg["task"] and set(cfg["conditioner"]) >= schema.KINDS:
        log.info("conditioner=auto: %s", choice_of(cfg["conditioner"], data.shape))
    cfg = schema.settle(cfg, data.shape, values)
    schema.check_process(cfg)
    for key in nodes(cfg):
        schema.check(cfg[key], key)
    return {key: schema.canonical(value) if key in NODES and value else value for key, value in cfg.items()}


def choice_of(node: dict, shape: tuple[int, ...]) -> str:
    """Names what a pair of choices means for data of this shape, and how to choose another."""
    kind = "vectors" if len(shape) == 1 else "images"
    chosen = node[kind]["_target_"].rpartition(".")[2].lower()
    return f"{chosen}, since the data are {kind}; conditioner=NAME is another"


def batch_of(shape: tuple[int, ...], device: str) -> int:
    """batch=auto: how many samples or points at a time. Of pictures on a CPU fewer than on a GPU, where small batches
    are slow: a U-Net's activations are hundreds of times as large as the picture, and a likelihood holds all of them.
    """
    values = 2**17 if len(shape) == 3 and device == "cpu" else 2**21
    count = max(1, min(8192, values // math.prod(shape)))
    return count if count < BLOCK else count - count % BLOCK  # whole blocks of noise, or some is drawn for nothing


def classes_of_networks(cfg: dict, data: Data) -> int:
    """classes=auto: how many a classifier tells apart; of features of data without labels, the turns of a picture."""
    if data.condition is not None and data.condition.classes:
        return len(data.condition.names)
    return 0 if "features" not in cfg["task"] else classes_in(data) or 4


def classes_in(data: Data) -> int | None:
    """How many classes the data have; None without labels, or where all are the same."""
    if data.train_labels is None or data.test_labels is None or len(data.train_labels.unique()) < 2:
        return None
    return len(torch.cat([data.train_labels, data.test_labels]).unique())


def nodes(cfg: dict) -> list[str]:
    """The groups that are constructor calls, those that a run has."""
    return [key for key in NODES if cfg.get(key)]


def steps_of_chain(node: dict) -> int:
    """training.loss.levels.count=auto: the T of an SDE whose time counts steps, 1000 of any other."""
    counts = getattr(schema.locate(node["_target_"], "sde"), "counts_steps", False)
    return max(2, int(node["T"])) if counts else 1000


def bins_of(data: Data) -> list | None:
    """observation.bins=auto: the shift and the scale of integers, in plain numbers, and how many levels they have."""
    return None if data.levels is None else [data.shift.tolist(), data.scale.tolist(), data.levels]


def frequencies_of(data: Data) -> list[float]:
    """pixel_features=auto: one turn a bin of integers, and one in 2, 4, 16 and 64 bins; of the finest, if they differ.

    Without the last two a network that settles a picture four bins beside the truth sees nothing wrong.
    """
    if data.levels is None:
        raise ValueError(
            "pixel_features=auto tells where in its bin an integer lies, and these data are continuous; leave it out, "
            "or type data.levels=L for a file of integers 0 ... L-1"
        )
    return [float(data.scale.max()) / part for part in (1, 2, 4, 16, 64)]


def unit_of(row: Any) -> float:
    """pixel_unit=auto: c_in of a parameterisation where the noise goes to 0."""
    if not isinstance(row, Parameterisation):
        return 1.0
    one = torch.ones((), dtype=torch.float64)
    return round(float(row.coefficients(one, 1e-6 * one)[2]), 6)


def observation_of(data: Data) -> dict:
    """model.observation=auto: a Gaussian for continuous data, for integers a law of integers."""
    if data.levels is None:
        return {"_target_": "latent.Gaussian", "std": None}
    return {"_target_": "latent.DiscretisedLogistic", "bins": bins_of(data), "mixture": 3}


def largest_noise(data: Data) -> float:
    """sde.sigma_max=auto: the data's largest distance, in four digits."""
    found = float(f"{data.largest_distance():.4g}")
    log.info("sde.sigma_max=%s, the largest distance between two of the training data in model units", found)
    return found


def choose_device(device: str, dtype: str) -> str:
    """The device that ``auto`` means here; ValueError for one that is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there and not (name == "mps" and dtype == "float64"))
    if not present[device]:
        raise ValueError(f"device={device} is not there; type device=cpu, or device=auto for the best that is")
    if device == "mps" and dtype == "float64":
        raise ValueError("device=mps has no float64; type dtype=float32 or device=cpu")
    return device
