"""Networks as the library diffusers keeps them: a folder with config.json and the weights, as safetensors.

Which configuration and which tensors a network has is told by the caller (:mod:`scoresde.models.unet2d`). Older files,
weights in a pickle, are read as :mod:`scoresde.training.published` reads one: nothing in them is executed.
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
"""What diffusers takes for a key that a file, or a network here, leaves out, as older files do."""

FREE = ("sample_size", "dropout")
"""Keys that change nothing of what the weights mean."""


def folder_of(path: Path | str) -> Path | None:
    """The folder of a network of diffusers: this one, or the part ``unet`` of a pipeline's; None if it is neither."""
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
    """The weights of a folder by name.

    Arguments:
        config: the configuration that they must be for.
        entries: the tensors that they must be.
        present: a tensor's name today, for files of older versions.

    Raises:
        FileNotFoundError, ValueError: there are none; they are damaged, or of another architecture.
    """
    where = f"{key}={folder}"
    try:
        found = json.loads((folder / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: its config.json is no text of JSON ({error}): copy it once more") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: its config.json holds no keys of a network: copy it once more")
    if (kind := found.get("_class_name")) != KIND:
        raise ValueError(f"{where} is a {kind} of diffusers; {KIND} is the one that is read here")
    found = same_groups(DEFAULTS | found)
    lines = [
        f"{name}: {found.get(name)} there, {value} in this run"
        for name, value in same_groups(DEFAULTS | config).items()
        if name not in FREE and not alike(found.get(name), value)
    ]
    if lines:
        raise ValueError(f"{where} is of another architecture than this run's network:\n  " + "\n  ".join(lines))
    tensors = {present(str(name)): tensor for name, tensor in weights(folder, where).items()}
    published.mind_the_tensors(tensors, where)
    published.compare(
        sorted((name, tuple(tensor.shape)) for name, tensor in tensors.items()),
        sorted(entries, key=lambda each: each.name),
        where,
    )
    return tensors


def same_groups(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with 32 groups for null where the two are one: null is min(C/4, 32) of C channels."""
    channels = config.get("block_out_channels")
    wide = isinstance(channels, list) and all(isinstance(each, int) and each >= 128 for each in channels)
    return config | {"norm_num_groups": 32} if wide and config["norm_num_groups"] is None else config


def alike(theirs: Any, ours: Any) -> bool:
    """Whether two values of a configuration are one, up to rounding."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (theirs, ours))
    return abs(theirs - ours) <= 1e-4 * abs(ours) if numbers else theirs == ours


def weights(folder: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a folder."""
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
    """A folder that ``UNet2DModel.from_pretrained`` reads; OSError where it cannot be written."""
    partial = {name: folder / f".partial-{os.getpid()}-{name}" for name in (f"{WEIGHTS}.safetensors", "config.json")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, text = partial.values()
        save_file(tensors, weights, metadata={"format": "pt"})
        whole = {"_class_name": KIND, "_diffusers_version": "0.35.0", **config}
        text.write_text(json.dumps(whole, indent=2) + "\n")
        for name, path in partial.items():  # both are whole before either takes its place
            path.replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder} could not be written ({getattr(error, 'strerror', None) or error})") from error
