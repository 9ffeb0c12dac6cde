"""The moments of a network's data, kept beside its checkpoints: a likelihood needs them when the data are gone."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from scoresde.data import Data
from scoresde.data.files import sha256
from scoresde.data.remembered import Moments

NAME = "moments.safetensors"
KEYS = ("mean", "variances", "directions", "rest")


def write(folder: Path, data: Data) -> str:
    """Writes :meth:`scoresde.data.Data.moments` to a network's folder, and returns the hash of the file."""
    *tensors, rest = data.moments()
    values = dict(zip(KEYS, [*tensors, torch.tensor([rest], dtype=torch.float64)], strict=True))
    partial, final = folder / f".{NAME}", folder / NAME
    save_file({key: value.contiguous() for key, value in values.items()}, partial)
    partial.replace(final)
    return sha256(final)


def read(described: dict, path: str | Path) -> Moments | None:
    """Returns the moments that lie in a network's folder; None where none were kept.

    Arguments:
        described: the network's identity, with ``source``, which holds the file's hash.
        path: the folder, or a checkpoint in it.

    Raises:
        ValueError: the file is missing or is not what was written.
    """
    wanted = (described.get("source") or {}).get("moments")
    if wanted is None:
        return None
    file = Path(path) / NAME
    file = file if file.exists() else Path(path).parent / NAME
    try:
        if sha256(file) == wanted:
            found = load_file(file)
            return (*(found[key] for key in KEYS[:3]), float(found["rest"]))
    except (OSError, SafetensorError, KeyError):
        pass
    raise ValueError(f"{file} is missing, or is not what was written: restore it from a copy, or train once more")
