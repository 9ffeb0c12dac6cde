"""Loads a trained network with its SDE and its data: ``scoresde.load``."""

import logging
from pathlib import Path
from typing import Any

import torch

from scoresde.data import Condition, Data
from scoresde.training import store

from . import schema, stored
from .assemble import build_data
from .identity import TURNS
from .trained import build_model

log = logging.getLogger(__name__)


def load(path: str | Path, device: str = "cpu") -> tuple[Any, Any, Any]:
    """Returns the (sde, score, data) of a trained network.

    For a classifier, a latent-variable model or a network of features, the model takes the place of the score; sde is
    None for the last two. Data that were read from a file are read again from its path, if the file has not changed;
    otherwise ``data`` has their units and no examples.

    Arguments:
        path: the network's folder in the store, for its newest checkpoint, or a ``step-*`` or ``kept-*`` folder in it.
        device: where the score is put.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint, it is damaged, or its config.yaml names anything but
            the parts of a network, of which nothing is built.
    """
    identity, found = stored.read(path)
    if found.step < identity["training"]["steps"]:
        log.warning("%s is unfinished: %s of %s updates", path, f"{found.step:,}", f"{identity['training']['steps']:,}")
    sde = schema.build(identity["sde"], "sde")
    score = store.put_weights(build_model(identity, sde), found, path)
    return sde, score.to(device), load_data(identity)


def load_data(identity: dict) -> Data:
    """Returns the data set of an identity; without examples if their file has changed or cannot be read.

    For a network of features of unlabelled pictures, these are the pictures without their turns.
    """
    node = stored.data_node(identity)
    if node.get("condition") == TURNS:
        node["condition"] = None
    if not (source := identity.get("source")):
        return build_data({"data": node})
    node["path"] = source["path"]
    try:
        schema.check(node, "data")
        data = build_data({"data": node})
        if data.fingerprint() == identity["data"]["fingerprint"]:
            return data
        log.warning(
            "%s is not the file that the network was trained on; data has its units and no examples", node["path"]
        )
    except (OSError, ValueError, ImportError) as error:
        log.warning("the data cannot be read again (%s); data have their units and no examples", error)
    try:
        return without_examples(source)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"config.yaml: its source does not describe data ({error}); restore it from a copy") from None


def without_examples(source: dict) -> Data:
    """Returns data of no examples, with the units and the condition of an identity's ``source``."""
    none = torch.empty(0, *source["shape"])
    shift, scale = (torch.tensor(source[key], dtype=torch.float64) for key in ("shift", "scale"))
    data = Data(none, none, shift, scale, source["levels"])
    if condition := source.get("condition"):
        shift, scale = (torch.tensor(condition.get(key, []), dtype=torch.float64) for key in ("shift", "scale"))
        none = (
            torch.empty(0, dtype=torch.int64)
            if condition["classes"]
            else torch.empty(0, len(shift), dtype=torch.float64)
        )
        data.condition = Condition(none, none, tuple(condition["names"]), condition["classes"], shift, scale)
    return data
