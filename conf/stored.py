"""Reads networks that a path names, for everything that builds from their config.yaml.

A folder may be a stranger's. So its configuration is checked like that of a command line before anything is built: each
node against its group's kind, and each value against its constructor's annotation.
"""

from pathlib import Path
from typing import Any

from scoresde.training import store
from scoresde.training.checkpoint import Checkpoint

from . import schema
from .identity import CACHE_KEYS

UNIT = float | list[Any]

SOURCE = {"path": str | None, "shape": list[int], "shift": UNIT, "scale": UNIT, "levels": int | None}
"""The keys of an identity's ``source``, and their annotations; see :func:`scoresde.conf.identity.source_of`."""

LATER = {"names": list[str] | None, "std": float | None, "moments": str | None}
"""The same for its keys that older networks lack."""

CONDITION = {"names": list[str], "classes": bool}
"""The same for its ``condition``, where it has one."""


def read(path: Path | str, key: str = "checkpoint") -> tuple[dict, Checkpoint]:
    """Returns a network's identity, with ``source``, and a checkpoint, once both are checked.

    Arguments:
        path, key: see :func:`scoresde.training.store.read`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged or of another version, or its config.yaml would build what does not belong there.
    """
    identity, found = store.read(path, key)
    try:
        check(identity)
    except ValueError as error:
        raise ValueError(
            f"{key}={path}: its config.yaml describes no network of this code, and nothing of it was built: {error}"
        ) from None
    return identity, found


def check(identity: dict) -> None:
    """Raises a ValueError for an identity from which a class of another kind, or with other values, would be built."""
    source = identity.get("source")
    if not (isinstance(source, dict) and source.get("path", "") is None):  # data from memory are not built
        schema.check(data_node(identity), "data")
    schema.check(node_of(identity, "model"), "model")
    # tensors, which come from the data, are left out of a training, and it is not built
    schema.check(node_of(identity, "training"), "training", whole=False)
    schema.check_value(identity["training"].get("steps"), int, "training.steps")
    if identity["sde"] is not None:  # that of latent-variable models and of networks of features
        schema.check(node_of(identity, "sde"), "sde")
        if "classes" not in identity["model"]:  # a classifier has no parameterisation
            schema.check(node_of(identity, "parameterisation"), "parameterisation")
    if source:
        check_keys(source, SOURCE, "source")
        for key, hint in LATER.items():
            schema.check_value(source.get(key), hint, f"source.{key}")
        if "condition" in source:
            check_keys(source["condition"], CONDITION, "source.condition")


def node_of(identity: dict, key: str) -> dict:
    """Returns a group's node; raises a ValueError if it is no dict."""
    node = identity[key]
    if not isinstance(node, dict):
        raise ValueError(f"{key}={node} must be a group of keys")
    return node


def data_node(identity: dict) -> dict[str, Any]:
    """Returns the node from which the data are built: without their hash, and without keys that say where to write."""
    node = node_of(identity, "data")
    return {key: value for key, value in node.items() if key not in ("fingerprint", *CACHE_KEYS)}


def check_keys(node: Any, hints: dict[str, Any], key: str) -> None:
    """Raises a ValueError if a node lacks one of these keys, or its value does not fit the annotation."""
    if not isinstance(node, dict) or not node.keys() >= hints.keys():
        raise ValueError(f"{key}={node} must have the keys {', '.join(hints)}")
    for name, hint in hints.items():
        schema.check_value(node[name], hint, f"{key}.{name}")
