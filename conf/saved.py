"""Writes a trained network to a folder of the user's choice, in the format of the store."""

from pathlib import Path
from typing import Any

from torch import nn

from scoresde.data import Data
from scoresde.training import checkpoint, store
from scoresde.training.checkpoint import Checkpoint

from . import moments


def save(folder: Path, described: dict[str, Any], score: nn.Module, data: Data, step: int) -> Path:
    """Writes a network with its identity, its data's units and moments; returns the folder.

    Arguments:
        folder: a new or empty folder, or one that holds the same network.
        described: the network's identity, with ``source``.
        step: the number of updates of its training.

    Raises:
        ValueError: the folder holds something else.
        OSError: it cannot be written.
    """
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()) and not same(folder, described):
        raise ValueError(f"{folder} is not empty and holds no copy of this network: choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    if "source" in described:
        described = {**described, "source": described["source"] | {"moments": moments.write(folder, data)}}
    store.write_config(folder, described)
    identity = store.digest(store.without_source(described))
    checkpoint.save(folder, Checkpoint(step, {"ema": score.state_dict()}, {}, identity))
    return folder


def same(folder: Path, described: dict[str, Any]) -> bool:
    """Returns whether a folder holds a network of this identity."""
    found = store.read_config(folder) if (folder / "config.yaml").is_file() else None
    return found is not None and store.without_source(found) == store.without_source(described)
