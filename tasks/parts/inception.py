"""The FID with Inception's features, ``task.fid`` of task=evaluate; it needs torchmetrics and Inception's weights.

Samples are compared with all training data, as in published numbers. Published numbers take 50,000 samples; with fewer
the FID is larger. The floor is the FID of the held-out data, whose number is ``fid_floor_count``. Grey images get three
equal channels, and levels other than 256 are scaled to 0 ... 255.

torch-fidelity unpickles the weights, which could run any code. So they are read here, tensors and nothing else, and it
is given a file with a copy.
"""

import pickle
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scoresde.data import Data

from .progress import progress


def inception(weights: bool | str, device: str) -> Any:
    """Returns torchmetrics' metric with its network loaded.

    Arguments:
        weights: the path of Inception's weights, or true for those of torch-fidelity, which are downloaded once.
        device: where the network runs.

    Raises:
        ImportError: torchmetrics or torch-fidelity is missing.
        OSError: the file of the weights does not exist, or they cannot be loaded.
        ValueError: the file would run code, or holds no weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError:
        raise ImportError(
            f"task.fid={weights} needs the packages torchmetrics and torch-fidelity: pip install -e .[fid], or leave "
            f"it out"
        ) from None
    try:
        tensors = tensors_of(weights, URL_INCEPTION_V3)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "inception.pth")
            torch.save(tensors, path)
            metric = FrechetInceptionDistance(
                2048, reset_real_features=False, feature_extractor_weights_path=path, antialias=False
            )
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"task.fid={weights}: Inception's weights could not be loaded ({reason}); download torch-fidelity's "
            f"file of them elsewhere and type task.fid=PATH, or leave it out"
        ) from None
    return metric.to(device)


def tensors_of(weights: bool | str, url: str) -> dict[str, Tensor]:
    """Returns the tensors of a file of torch.save or safetensors, by name; nothing in it is executed.

    Arguments:
        weights: as for :func:`inception`.
        url: the file for true.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it would run code, or holds no weights.
        OSError, and errors of torch: it is damaged or cannot be had.
    """
    path = downloaded(url) if weights is True else Path(str(weights))
    if not path.is_file():
        raise FileNotFoundError(
            f"task.fid={weights} does not exist (looked at {path.absolute()}): type the path of Inception's weights, "
            f"or task.fid=true to have them downloaded"
        )
    try:
        if tarfile.is_tarfile(path):  # the format of torch 0.1, which torch before 2.6 reads by another unpickler
            raise pickle.UnpicklingError
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"task.fid={weights} asks to run code when it is read, or is damaged, and nothing of it was run. Where you "
            f"trust the file, convert it with safetensors.torch.save_file(torch.load(PATH, weights_only=False), "
            f"'inception.safetensors') and type task.fid=inception.safetensors"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"task.fid={weights} holds no tensors by name: type the path of torch-fidelity's weights")
    return found


def downloaded(url: str) -> Path:
    """Returns the place of a file in torch's cache, once it is there; its name ends in the start of its sha256."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    return path


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
