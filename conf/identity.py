"""What decides a network's weights, in plain values: the store's key, and what a checkpoint is compared with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.data import Turned

TURNS = "turns"  # the y of pictures without labels, that of the network in whose features they are compared


def identity_of(cfg: dict, data: Any) -> dict:
    """What decides a network's weights, in plain values; a file of data counts by its content and not by its path."""
    training = {key: plain(value) for key, value in cfg["training"].items() if key not in HOW}
    training = {key: value for key, value in training.items() if (key, value) not in YOUNGER_TRAINING.items()}
    if training.get("optimiser") != "muon":
        training.pop("momentum", None)
    if data.levels is None or training.get("dequantise") == "uniform":
        training.pop("dequantise", None)  # networks older than the key keep their names; continuous data have no bins
    fingerprint = data.fingerprint()
    told = cfg["model"].get("classes") or any(node.get("condition") for node in tree(cfg["model"]))
    beside = (*BESIDE, *data.held_out_keys, *(() if told else data.conditional_keys))
    beside += () if fingerprint is None else ("path",)
    described = without({key: value for key, value in cfg["data"].items() if key not in beside}, YOUNGER_DATA)
    if described.get("condition") is None or described["condition"] == "labels" and not told:
        described.pop("condition", None)  # labels that a network is not told decide nothing of it
    if "classes" in cfg["model"]:
        described["condition"] = TURNS if isinstance(getattr(data, "joint", None), Turned) else "labels"
    if described.get("condition", "labels") not in ("labels", TURNS):  # 0, [0] and ['0'] name one column
        given = described["condition"]
        described["condition"] = [str(key) for key in (given if isinstance(given, list) else [given])]
    if not told or not training.get("drop"):
        training.pop("drop", None)
    if described.get("labels") is None:
        described.pop("labels", None)
    if fingerprint is not None:
        described["fingerprint"] = fingerprint
    return {
        "data": described,
        "sde": cfg["sde"],
        "model": without(weighty(cfg["model"]), YOUNGER),
        "parameterisation": without(cfg["parameterisation"], {"input": None}),
        "training": training,
    }


def tree(node: Any) -> Iterator[dict]:
    """The node and all below it."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from tree(value)


def plain(node: Any) -> Any:
    """A node without the values that only Python has: they come from the data, which an identity names already."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if not holds_tensors(value)}
    return node


def holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensors, value)))


YOUNGER = {"embedding": "smooth", "condition": 0, "pixel_features": []}
"""Keys of networks that are younger than the store, and their defaults: at these, older networks keep their names."""


MEMORY = {"checkpointing": False}
"""Keys of networks that decide memory alone: a network is named by their defaults, whatever they are."""

IDLE = {"models.UNet": tuple(MEMORY)}
"""Networks that are older than these keys, and are named without them."""


YOUNGER_DATA = {"flip": False, "crop": None}
"""The same of data sets."""

YOUNGER_TRAINING = {"precision": "auto", "accumulate": 1, "optimiser": "adam"}
"""The same of trainers."""

BESIDE = ("cache",)
"""Keys of data sets that decide nothing."""

HOW = ("evaluate", "save_seconds", "compile", "channels_last")
"""Keys of trainers that change no more than the weights' last digits."""


def without(node: Any, defaults: dict) -> Any:
    """The node without the keys that are at their defaults, here and below."""
    if not isinstance(node, dict):
        return node
    return {key: without(value, defaults) for key, value in node.items() if (key, value) not in defaults.items()}


def weighty(node: Any) -> Any:
    """A model's node without the keys that decide nothing of its weights."""
    if not isinstance(node, dict):
        return node
    idle = IDLE.get(node.get("_target_"), ())
    if not node.get("pixel_features"):
        idle += ("pixel_unit",)
    return {key: MEMORY.get(key, weighty(value)) for key, value in node.items() if key not in idle}


def source_of(cfg: dict, data: Any) -> dict:
    """Where data of a file were found, and their units: what `load` needs to go on with them."""
    if data.fingerprint() is None:
        return {}
    path, known = cfg["data"].get("path"), data.condition
    units = {} if known is None or known.classes else {"shift": known.shift.tolist(), "scale": known.scale.tolist()}
    told = {} if known is None else {"condition": {"names": list(known.names), "classes": known.classes, **units}}
    return {
        "path": str(Path(path).absolute()) if path and Path(path).exists() else path,
        "shape": list(data.shape),
        "shift": data.shift.tolist(),
        "scale": data.scale.tolist(),
        "levels": data.levels,
        **told,
    }


def differences(saved: Any, now: Any, key: str = "") -> list[str]:
    """What two trees of plain values disagree in, a line a key."""
    if isinstance(saved, dict) and isinstance(now, dict):
        if saved.get("_target_") != now.get("_target_"):
            return [f"{key}: {saved.get('_target_')} in the checkpoint, {now.get('_target_')} here"]
        names = dict.fromkeys([*saved, *now])
        return [
            line
            for name in names
            for line in differences(
                saved.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name
            )
        ]
    return [] if saved == now else [f"{key}: {saved} in the checkpoint, {now} here"]
