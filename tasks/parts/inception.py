"""The FID with Inception's features, ``task.fid`` of task=evaluate; it needs torchmetrics and Inception's weights.

Samples are compared with all training data, as in published numbers. Published numbers take 50,000 samples; with fewer
the FID is larger. The floor is the FID of the held-out data, whose number is ``fid_floor_count``. Grey images get three
equal channels, and levels other than 256 are scaled to 0 ... 255.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde.data import Data

from .progress import progress


def inception(weights: bool | str, device: str) -> Any:
    """Returns torchmetrics' metric with its network loaded.

    Arguments:
        weights: the path of Inception's weights, or true for those that torch-fidelity downloads or has downloaded.
        device: where the network runs.

    Raises:
        ImportError: torchmetrics or torch-fidelity is missing.
        OSError: the file of the weights does not exist, or they cannot be loaded.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError:
        raise ImportError(
            f"task.fid={weights} needs the packages torchmetrics and torch-fidelity: pip install -e .[fid], or leave "
            f"it out"
        ) from None
    path = None if weights is True else str(weights)
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(
            f"task.fid={weights} does not exist (looked at {Path(path).absolute()}): type the path of Inception's "
            f"weights, or task.fid=true to let torch-fidelity download them"
        )
    try:
        metric = FrechetInceptionDistance(
            2048, reset_real_features=False, feature_extractor_weights_path=path, antialias=False
        )
    except ModuleNotFoundError:
        raise ImportError(f"task.fid={weights} needs the package torch-fidelity: pip install -e .[fid]") from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"task.fid={weights}: Inception's weights could not be loaded ({reason}); download torch-fidelity's "
            f"file of them elsewhere and type task.fid=PATH, or leave it out"
        ) from None
    return metric.to(device)


def inception_distances(metric: Any, r: Tensor, data: Data, device: str, batch: int) -> dict[str, float]:
    """Returns the FID of samples r (N, C, H, W) in data units against the training data, its floor, and the number of
    data in the floor.

    Arguments:
        metric: of :func:`inception`.
    """
    parts = (("real", data.train), ("fake", r), ("held-out", data.test))
    found, done = [], 0
    with progress("FID", sum(len(each) for _, each in parts)) as advance:
        for name, images in parts:
            for part in images.split(batch):
                metric.update(in_bytes(part, data.levels).to(device), real=name == "real")
                done += len(part)
                advance(done)
            if name != "real":
                found.append(float(metric.compute()))
                metric.reset()  # keeps the statistics of the training data
    return {"fid": found[0], "fid_floor": found[1], "fid_floor_count": len(data.test)}


def in_bytes(r: Tensor, levels: int) -> Tensor:
    """Converts images (B, 1 or 3, H, W) of integers 0 ... levels - 1 to bytes (B, 3, H, W)."""
    if levels != 256:
        r = (r.double() * (255 / (levels - 1))).round()
    return r.to(torch.uint8).expand(-1, 3, -1, -1)
