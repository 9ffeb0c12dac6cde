"""Networks in the format of the library diffusers: a folder with config.json and the weights as safetensors.

The caller gives the network's configuration and tensors in the form of diffusers (:mod:`scoresde.models.unet2d`).
``checkpoint=FOLDER`` reads such a folder and ``task=export`` writes one. Older folders hold the weights in a pickle,
which is read as in :mod:`scoresde.training.published`: nothing in it is executed.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import published
from .published import Named

WEIGHTS = "diffusion_pytorch_model"
KIND = "UNet2DModel"

DEFAULTS = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "downsample_type": "conv",
    "upsample_type": "conv",
    "mid_block_type": "UNetMidBlock2D",
    "add_attention": True,
    "class_embed_type": None,
}
"""The defaults of diffusers, for keys that a file or a network here leaves out."""

FREE = ("sample_size", "dropout")
"""Keys that do not change what the weights compute."""


def folder_of(path: Path | str) -> Path | None:
    """Returns the folder with the config.json of a network of diffusers: the path, or its subfolder ``unet`` as in a
    pipeline; None if neither has one.
    """
    for folder in (Path(path), Path(path) / "unet"):
        if (folder / "config.json").is_file():
            return folder
    return None


def read(
    folder: Path,
    config: dict[str, Any],
    entries: list[Named],
    present: Callable[[str], str] = str,
    key: str = "checkpoint",
) -> dict[str, Tensor]:
    """Returns the weights of a folder by their names in today's diffusers.

    Arguments:
        config: the configuration that the folder must have, with ``DEFAULTS`` for the keys left out; the keys ``FREE``
            may differ.
        entries: the tensors that the folder must have, in any order.
        present: maps a tensor's name in an older version of diffusers to its name today.
        key: the configuration key that gave the folder, for messages.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: a file is damaged or would run code, or the network is of another class or architecture.
    """
    where = f"{key}={folder}"
    try:
        theirs = json.loads((folder / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: its config.json is not valid JSON ({error}): copy it once more") from None
    if not isinstance(theirs, dict):
        raise ValueError(f"{where}: its config.json is not an object with keys: copy it once more")
    if (kind := theirs.get("_class_name")) != KIND:
        raise ValueError(f"{where} is a {kind} of diffusers; only {KIND} can be read")
    theirs = same_groups(DEFAULTS | theirs)
    lines = [
        f"{name}: {theirs.get(name)} there, {value} in this run"
        for name, value in same_groups(DEFAULTS | config).items()
        if name not in FREE and not alike(theirs.get(name), value)
    ]
    if lines:
        raise ValueError(f"{where} is of another architecture than this run's network:\n  " + "\n  ".join(lines))
    tensors = {present(str(name)): tensor for name, tensor in weights(folder, where).items()}
    published.check_tensors(tensors, where)
    published.compare(
        sorted((name, tuple(tensor.shape)) for name, tensor in tensors.items()),
        sorted(entries, key=lambda entry: entry.name),
        where,
    )
    return tensors


def same_groups(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration, with 32 for ``norm_num_groups=null`` if all levels have at least 128 channels.

    null stands for min(C/4, 32) groups of C channels, which is 32 for these.
    """
    channels = config.get("block_out_channels")
    wide = isinstance(channels, list) and all(isinstance(count, int) and count >= 128 for count in channels)
    return config | {"norm_num_groups": 32} if wide and config["norm_num_groups"] is None else config


def alike(theirs: Any, ours: Any) -> bool:
    """Returns whether two values of a configuration are equal, numbers up to a relative 1e-4."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (theirs, ours))
    return abs(theirs - ours) <= 1e-4 * abs(ours) if numbers else theirs == ours


def weights(folder: Path, where: str) -> dict[str, Tensor]:
    """Returns the tensors of a folder by their names in the file; raises what :func:`read` raises."""
    safe, older = folder / f"{WEIGHTS}.safetensors", folder / f"{WEIGHTS}.bin"
    if safe.is_file():
        try:
            return load_file(safe)
        except SafetensorError as error:
            raise ValueError(f"{where}: {safe.name} is damaged ({error}): copy or download it once more") from None
    if older.is_file():
        return published.load(older)
    raise FileNotFoundError(f"{where} holds no weights, neither {safe.name} nor {older.name}: download them as well")


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes a folder that ``UNet2DModel.from_pretrained`` reads; OSError if it cannot be written."""
    partial = {name: folder / f".partial-{os.getpid()}-{name}" for name in (f"{WEIGHTS}.safetensors", "config.json")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, text = partial.values()
        save_file(tensors, weights, metadata={"format": "pt"})
        whole = {"_class_name": KIND, "_diffusers_version": "0.35.0", **config}
        text.write_text(json.dumps(whole, indent=2) + "\n")
        for name, path in partial.items():  # both files are whole before one is renamed
            path.replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder} could not be written ({getattr(error, 'strerror', None) or error})") from error
