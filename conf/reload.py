"""Loads a trained network with its SDE and its data."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scoresde.data import Condition, Data, Remembered
from scoresde.data.remembered import Moments
from scoresde.training import store

from . import moments, schema, stored
from .assemble import build_data
from .identity import TURNS
from .trained import build_model

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A trained network, its SDE and its data, with its identity and ``source``; see :mod:`scoresde.conf.identity`."""

    sde: Any
    score: Any
    data: Data
    described: dict[str, Any]
    step: int


def load(path: str | Path, device: str = "cpu") -> Loaded:
    """Returns a trained network, with its SDE and its data.

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
    return Loaded(sde, score.to(device), load_data(identity, moments.read(identity, path)), identity, found.step)


def load_data(identity: dict, kept: Moments | None = None) -> Data:
    """Returns the data set of an identity; without examples if they were in memory, or if their file has changed or
    cannot be read.

    For a network of features of unlabelled pictures, these are the pictures without their turns.

    Arguments:
        kept: the data's moments, for data without examples; None where they were not kept.
    """
    node = stored.data_node(identity)
    if node.get("condition") == TURNS:
        node["condition"] = None
    if not (source := identity.get("source")):
        return build_data({"data": node})
    if source["path"] is None:
        return remembered(source, kept)
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
    return remembered(source, kept)


def remembered(source: dict, kept: Moments | None) -> Remembered:
    """Returns the data set that ``source`` describes, without examples.

    Raises:
        ValueError: its values do not fit together.
    """
    try:
        return remembered_of(source, kept)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"config.yaml: its source does not describe data ({error}); restore it from a copy") from None


def remembered_of(source: dict, kept: Moments | None) -> Remembered:
    """Returns :func:`remembered` of a source that describes data."""
    shift, scale = (torch.tensor(source[key], dtype=torch.float64) for key in ("shift", "scale"))
    asked = None
    if condition := source.get("condition"):
        units = (torch.tensor(condition.get(key, []), dtype=torch.float64) for key in ("shift", "scale"))
        none = torch.empty(0, dtype=torch.int64)
        if not condition["classes"]:
            none = torch.empty(0, len(condition["names"]), dtype=torch.float64)
        asked = Condition(none, none, tuple(condition["names"]), condition["classes"], *units)
    shape, names, std = tuple(source["shape"]), source.get("names"), source.get("std")
    return Remembered(shape, shift, scale, source["levels"], names, std, kept, asked)
