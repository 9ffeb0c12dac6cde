"""The description of a run's samples: all that decides them, in plain values.

:mod:`scoresde.tasks.parts.sample_cache` keeps the samples beside their network, under a hash of this description.
"""

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from scoresde.data import Data
from scoresde.tasks import Network

from .identity import holds_tensors, identity_of

VERSION = 1  # raised when the code would draw other samples from the same description


def weights_of(model: nn.Module) -> str:
    """Returns ten hexadecimal digits of a hash of a model's ``state_dict``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]


def description(cfg: dict, data: Data, score: nn.Module) -> dict[str, Any]:
    """Returns what decides the samples of a score. The network counts by its weights, not by its training.

    Arguments:
        data: the data with the y that ``condition=`` names.
        score: in the precision of its training.
    """
    condition = data.condition
    return {
        "version": VERSION,
        "data": identity_of(cfg, data)["data"],
        "sde": cfg["sde"],
        "model": written(cfg["model"]),
        "parameterisation": cfg["parameterisation"],
        "weights": weights_of(score),
        "sampler": written(cfg["task"]["sampler"]),
        "tempering": written(cfg["task"]["tempering"]),
        "condition": None if condition is None or condition.asked is None else condition.asked.tolist(),
        "guidance": float(cfg["guidance"]),
        "seed": cfg["seed"],
        "dtype": cfg["dtype"],
        "device": str(cfg["device"]).split(":")[0],  # whose generators draw other noise from the same seed
    }


def written(node: Any) -> Any:
    """Returns a node without tensors and functions: they come from the data, which the description holds already."""
    if isinstance(node, dict):
        return {key: written(v) for key, v in node.items() if not callable(v) and not holds_tensors(v)}
    return node


def home_of(cfg: dict, network: Network, name: str) -> Path:
    """Returns the folder of the network; for a score without one, the folder ``name`` of the store."""
    return network.folder or Path(cfg["store"]) / name
