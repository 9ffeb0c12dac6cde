"""The identity of a network: all that decides its weights, in plain values.

Its hash is the network's key in the store, and checkpoints are compared by parts of it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.data import Turned

CONTENT = "content"  # the key of a hash, for data from memory that have no fingerprint of their own
TURNS = "turns"  # stands for data.condition in a network that learns which turn of a picture it sees (data/turned.py)


def identity_of(cfg: dict, data: Any) -> dict:
    """Returns what decides a network's weights, in plain values.

    Data of a file count by the file's content and not by its path. Keys that change no more than the last digits of the
    weights are left out or set to their defaults. Keys that are newer than the store are left out at their defaults, so
    that older networks keep their names.

    Arguments:
        cfg: a settled configuration.
    """
    conditional = bool(cfg["model"].get("classes")) or any(node.get("condition") for node in tree(cfg["model"]))
    return {
        "data": identity_of_data(cfg, data, conditional),
        "sde": cfg["sde"],
        "model": without(without_memory_keys(cfg["model"]), NEW_MODEL_KEYS),
        "parameterisation": without(cfg["parameterisation"], {"input": None}),
        "training": identity_of_training(cfg, data, conditional),
    }


def identity_of_data(cfg: dict, data: Any, conditional: bool) -> dict:
    """Returns what decides the examples that the network is trained on, and the y that it takes."""
    fingerprint = data.fingerprint()
    left_out = (*CACHE_KEYS, *data.held_out_keys, *(() if conditional else data.conditional_keys))
    left_out += () if fingerprint is None else ("path",)
    described = without({key: value for key, value in cfg["data"].items() if key not in left_out}, NEW_DATA_KEYS)
    if described.get("condition") is None or described["condition"] == "labels" and not conditional:
        described.pop("condition", None)  # an unconditional network does not depend on the labels
    if "classes" in cfg["model"]:
        described["condition"] = TURNS if isinstance(getattr(data, "joint", None), Turned) else "labels"
    if described.get("condition", "labels") not in ("labels", TURNS):  # 0, [0] and ['0'] name one column
        given = described["condition"]
        described["condition"] = [str(key) for key in (given if isinstance(given, list) else [given])]
    if described.get("labels") is None:
        described.pop("labels", None)
    if fingerprint is not None:
        described["fingerprint"] = fingerprint
    return described


def identity_of_training(cfg: dict, data: Any, conditional: bool) -> dict:
    """Returns what decides the training, without the keys that decide how fast it is."""
    training = {key: plain(value) for key, value in cfg["training"].items() if key not in SPEED_KEYS}
    training = {key: value for key, value in training.items() if (key, value) not in NEW_TRAINING_KEYS.items()}
    if training.get("optimiser") != "muon":
        training.pop("momentum", None)
    if data.levels is None or training.get("dequantise") == "uniform":
        training.pop("dequantise", None)  # the default, and continuous data have no bins
    if not conditional or not training.get("drop"):
        training.pop("drop", None)
    return training


def tree(node: Any) -> Iterator[dict]:
    """Yields the node and all nodes below it, except those in lists; nothing for a value that is no node."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from tree(value)


def plain(node: Any) -> Any:
    """Returns a node without its tensors: they come from the data, which an identity holds already."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if not holds_tensors(value)}
    return node


def holds_tensors(value: Any) -> bool:
    """Returns whether a value is a tensor, or a list or tuple that holds one at any depth."""
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensors, value)))


NEW_MODEL_KEYS = {"embedding": "smooth", "condition": 0, "pixel_features": []}
"""Keys of networks that are newer than the store, and their defaults, at which they are left out."""

NEW_DATA_KEYS = {"flip": False, "crop": None}
"""The same for data sets."""

NEW_TRAINING_KEYS = {"precision": "auto", "accumulate": 1, "optimiser": "adam"}
"""The same for trainers."""

MEMORY_KEYS = {"checkpointing": False}
"""Keys of networks that decide how much memory a training takes, and their defaults, which an identity holds."""

WITHOUT_MEMORY_KEYS = {"models.UNet": tuple(MEMORY_KEYS)}
"""Networks that are older than some memory keys; their identities do not hold these keys."""

CACHE_KEYS = ("cache",)
"""Keys of data sets that decide where decoded pixels are kept."""

SPEED_KEYS = ("evaluate", "save_seconds", "compile", "channels_last")
"""Keys of trainers that change no more than the last digits of the weights."""


def without(node: Any, defaults: dict) -> Any:
    """Returns the node without the keys that are at these defaults, at every depth."""
    if not isinstance(node, dict):
        return node
    return {key: without(value, defaults) for key, value in node.items() if (key, value) not in defaults.items()}


def without_memory_keys(node: Any) -> Any:
    """Returns a model's node without what does not change its weights, at every depth.

    Memory keys are set to their defaults, or left out for networks that are older than these keys. ``pixel_unit`` is
    left out where no pixel features use it.
    """
    if not isinstance(node, dict):
        return node
    left_out = WITHOUT_MEMORY_KEYS.get(node.get("_target_"), ())
    if not node.get("pixel_features"):
        left_out += ("pixel_unit",)
    return {key: MEMORY_KEYS.get(key, without_memory_keys(value)) for key, value in node.items() if key not in left_out}


def source_of(cfg: dict, data: Any) -> dict:
    """Returns where data of a file were found, and their units, which ``scoresde.load`` needs if the file is gone; an
    empty dict for data that a configuration describes. Data from memory have the path None.
    """
    if data.fingerprint() is None and CONTENT not in cfg["data"]:
        return {}
    path, condition = cfg["data"].get("path"), data.condition
    described = {}
    if condition is not None:
        described = {"names": list(condition.names), "classes": condition.classes}
        if not condition.classes:
            described |= {"shift": condition.shift.tolist(), "scale": condition.scale.tolist()}
    return {
        "path": str(Path(path).absolute()) if path and Path(path).exists() else path,
        "shape": list(data.shape),
        "shift": data.shift.tolist(),
        "scale": data.scale.tolist(),
        "levels": data.levels,
        "names": data.labels(),
        "std": data.std,
        **({"condition": described} if described else {}),
    }


def differences(saved: Any, now: Any, key: str = "") -> list[str]:
    """Returns the keys at which two trees of plain values differ, a line each."""
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
