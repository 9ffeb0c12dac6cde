"""Finds the values that ``auto`` stands for in a configuration, once the data are read, and fills them in."""

import logging
import math
from functools import cache
from typing import Any

import torch

from scoresde.data import Data
from scoresde.models import Parameterisation
from scoresde.sde_lib.noise import BLOCK

from . import compatibility, schema
from .keys import typed_keys

log = logging.getLogger(__name__)

NODES = tuple(key for key in schema.GROUPS if key != "logger")


def settle(cfg: dict, data: Data, device: str) -> dict:
    """Returns the settled configuration: with a value for each ``auto`` that waits for the data, and checked against
    its constructors.

    Beside its groups it holds ``typed``, the keys by which a user reaches places in it; see
    :func:`scoresde.conf.keys.typed_keys`.

    Raises:
        ValueError: a part needs other data or another SDE, the data have no spread, or a value does not fit.
    """
    refuse_no_mixture(cfg, data)
    refuse_no_spread(data)
    if data.condition is not None and "truth" in cfg["training"]["loss"]:
        raise ValueError(
            "training/loss=explicit compares with the score of p(x), and data.condition= asks for p(x | y); type "
            "training/loss=likelihood"
        )
    if "conditioner" in cfg["task"] and set(cfg["conditioner"]) >= schema.KINDS:
        log.info("conditioner=auto: %s", choice_of(cfg["conditioner"], data.shape))
    typed = typed_keys(cfg, data.shape)
    cfg = schema.settle(cfg, data.shape, values_of(cfg, data, device))
    compatibility.process(cfg)
    for key in nodes(cfg):
        if key != "data":  # they are built
            schema.check(cfg[key], key)
    settled = {key: schema.canonical(value) if key in NODES and value else value for key, value in cfg.items()}
    return settled | {"typed": typed}


def values_of(cfg: dict, data: Data, device: str) -> dict[str, Any]:
    """Returns what ``auto`` stands for, by the last one or two words of a key; see :func:`scoresde.conf.schema.settle`.

    Functions are called only if their value is needed.
    """
    blind = is_blind(cfg, data)
    values = {
        "shape": list(data.shape),
        "components": data.components(),
        "labels": data.labels(),
        "moments": data.moments,
        "reference": lambda: data.encode(data.dequantise(data.train[:20_000], None)),
        "condition": 0 if blind else data.condition.width,
        "evidence": lambda: getattr(data, "evidence", None),
        "classes": lambda: classes_of_networks(data),
        "last": "flow" if len(data.shape) == 1 else "tweedie",  # pictures look sharper so; see samplers/last.py
        "drop": 0.1 if not blind and data.condition.classes else 0.0,
        "sigma_data": lambda: round(data.std, 6),
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
    return values


def refuse_no_mixture(cfg: dict, data: Data) -> None:
    """Raises a ValueError for parts that take their mixture from the data, if the data are no mixture."""
    if data.components() is not None:
        return
    for key, node, remedy in (
        ("model=oracle", cfg["model"], "model=mlp or model=unet"),
        ("training/loss=explicit", cfg["training"]["loss"].get("truth", {}), "training/loss=likelihood"),
    ):
        if node.get("components") == schema.AUTO:
            raise ValueError(
                f"{key} needs data whose density is a mixture, data=mixture or data=8gaussians; "
                f"for other data choose {remedy}"
            )


def refuse_no_spread(data: Data) -> None:
    """Raises a ValueError unless the data's std in model units, rounded to six decimals, is positive and finite."""
    spread = round(data.std, 6)
    if 0 < spread < math.inf:
        return
    found = (
        "all training examples are equal"
        if spread == 0
        else f"the training data have the std {data.std:.3g} in model units, which float32 does not hold"
    )
    raise ValueError(
        f"{found}: nothing can be learnt from them; look at the file, or at data.limit, data.count and "
        f"data.test_fraction"
    )


def is_blind(cfg: dict, data: Data) -> bool:
    """Returns whether the network takes no y: the data have none, or a classifier guides a network of p(x)."""
    return data.condition is None or bool(cfg.get("classifier"))


def nodes(cfg: dict) -> list[str]:
    """Returns the groups of a run that are constructor calls; a run may lack ``classifier``."""
    return [key for key in NODES if cfg.get(key)]


def choice_of(node: dict, shape: tuple[int, ...]) -> str:
    """Returns in words which conditioner ``conditioner=auto`` takes for this shape, and how to choose another."""
    kind = "vectors" if len(shape) == 1 else "images"
    chosen = node[kind]["_target_"].rpartition(".")[2].lower()
    return f"{chosen}, since the data are {kind}; conditioner=NAME is another"


def batch_of(shape: tuple[int, ...], device: str) -> int:
    """Returns ``batch=auto``, the number of samples or points per batch: at most 8192, and at most 2^21 values, or 2^17
    for images on a CPU; at least 1.

    A U-Net's activations are hundreds of times as large as the picture, and a likelihood holds all of them; on a GPU
    small batches are slow.
    """
    values = 2**17 if len(shape) == 3 and device == "cpu" else 2**21
    count = max(1, min(8192, values // math.prod(shape)))
    return count if count < BLOCK else count - count % BLOCK  # whole blocks of noise, or some is drawn for nothing


def classes_of_networks(data: Data) -> int:
    """Returns ``classes=auto``: how many classes a classifier tells apart; 4 for data without classes.

    A feature network of unlabelled pictures learns to tell their four turns apart (:class:`scoresde.data.Turned`).
    """
    if data.condition is not None and data.condition.classes:
        return len(data.condition.names)
    return data.label_count() or 4


def steps_of_chain(node: dict) -> int:
    """Returns ``training.loss.levels.count=auto``: T of an SDE whose time counts steps, 1000 for any other."""
    counts = getattr(schema.locate(node["_target_"], "sde"), "counts_steps", False)
    return max(2, int(node["T"])) if counts else 1000


def bins_of(data: Data) -> list | None:
    """Returns ``observation.bins=auto``: [shift, scale, levels] of integers; None for continuous data."""
    return None if data.levels is None else [data.shift.tolist(), data.scale.tolist(), data.levels]


def frequencies_of(data: Data) -> list[float]:
    """Returns ``pixel_features=auto``: the frequencies with periods of 1, 2, 4, 16 and 64 bins of the finest integers.

    Without the last two, values that differ by four bins would have equal Fourier features.

    Raises:
        ValueError: the data are continuous.
    """
    if data.levels is None:
        raise ValueError(
            "pixel_features=auto tells where in its bin an integer lies, and these data are continuous; leave it out, "
            "or type data.levels=L for a file of integers 0 ... L-1"
        )
    return [float(data.scale.max()) / part for part in (1, 2, 4, 16, 64)]


def unit_of(row: Any) -> float:
    """Returns ``pixel_unit=auto``: c_in of a parameterisation at alpha = 1 as the noise goes to 0; 1 for others."""
    if not isinstance(row, Parameterisation):
        return 1.0
    one = torch.ones((), dtype=torch.float64)
    return round(float(row.coefficients(one, 1e-6 * one)[2]), 6)  # (c_skip, c_out, c_in)[2]


def observation_of(data: Data) -> dict:
    """Returns ``model.observation=auto``: a Gaussian for continuous data, discretised logistics for integers."""
    if data.levels is None:
        return {"_target_": "latent.Gaussian", "std": None}
    return {"_target_": "latent.DiscretisedLogistic", "bins": bins_of(data), "mixture": 3}


def largest_noise(data: Data) -> float:
    """Returns ``sde.sigma_max=auto``: the largest distance between two of the first 5,000 training examples in model
    units, to four digits.
    """
    found = float(f"{data.largest_distance():.4g}")
    log.info("sde.sigma_max=%s, the largest distance between two of the training data in model units", found)
    return found
