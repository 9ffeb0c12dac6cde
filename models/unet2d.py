"""The correspondence of the weights of diffusers' UNet2DModel to the weights here, and the configuration of one.

Two kinds of UNet2DModel can be written as networks :class:`scoresde.models.NCSNpp`: DDPM with attention after every
block on the way up (``model=ddpm model.attention_up=all``), and NCSN++ with the filter and ``progressive=output_skip
progressive_input=input_skip``. In a UNet2DModel the linear maps of the channels in attention are matrices (out, in). A
:class:`scoresde.models.DiffusersUNet` contains a UNet2DModel, and its tensors keep their names.

In the kind of DDPM ``norm_num_groups`` is the number of groups of every normalisation, ``model.groups`` here. The kind
of NCSN++ always has min(C/4, 32) groups for C channels in its blocks and 32 in the attention of its levels;
``norm_num_groups=null`` gives min(C/4, 32) in the middle and at the end. With attention on a level of fewer than 128
channels this kind of UNet2DModel therefore computes another function than our NCSN++.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from .diffusers_unet import DiffusersUNet
from .embedding import Positional, RandomFourier
from .layout import Entry, entry
from .ncsnpp import NCSNpp, Residual

FIR = [1.0, 3.0, 3.0, 1.0]


def is_ncsnpp(net: NCSNpp) -> bool:
    """Returns True for a UNet2DModel of NCSN++'s kind and False for one of DDPM's kind.

    Raises:
        ValueError: the network is neither, or has an option that no UNet2DModel of its kind has.
    """
    skips = (net.progressive, net.progressive_input) == ("output_skip", "input_skip")
    plain = (net.progressive, net.progressive_input) == ("none", "none")
    ddpm = plain and net.residual == "ddpm" and net.taps is None and net.weight == 1 and net.attention_up == "all"
    ncsnpp = skips and net.residual == "biggan" and net.taps == FIR and net.weight < 1 and net.attention_up == "last"
    if not (ddpm or ncsnpp) or net.known is not None:
        raise ValueError(
            "this network is no UNet2DModel: those are model=ddpm model.attention_up=all, and model=ncsnpp "
            "model.progressive=output_skip model.progressive_input=input_skip, without a condition"
        )
    if len(net.channels) > 1 and (ddpm and not net.resample_with_conv or ncsnpp and net.combine != "sum"):
        raise ValueError(
            "this network is no UNet2DModel: type model.resample_with_conv=true for model=ddpm, model.combine=sum for "
            "model=ncsnpp"
        )
    if ncsnpp and not isinstance(net.features, RandomFourier) or ddpm and not isinstance(net.features, Positional):
        raise ValueError(
            "this network is no UNet2DModel: type model.embedding=fourier for model=ncsnpp, positional for model=ddpm"
        )
    if ncsnpp and net.first.in_channels != 3 and len(net.channels) > 1:
        raise ValueError("a UNet2DModel of this kind takes images of three channels only")
    if ncsnpp and net.data_range not in (1, 2):
        raise ValueError(
            f"model.data_range={net.data_range}: a UNet2DModel has images in [0, 1] or in [-1, 1]; type "
            f"model.data_range=2 or 1"
        )
    return ncsnpp


def config(net: nn.Module) -> dict[str, Any]:
    """Returns the keys of a UNet2DModel that computes the same function as a network.

    Raises:
        ValueError: there is no such UNet2DModel.
    """
    if isinstance(net, DiffusersUNet):
        return net.config()
    if not isinstance(net, NCSNpp):
        raise ValueError(f"model={type(net).__name__} is no UNet2DModel; type model=ddpm model.attention_up=all")
    ncsnpp = is_ncsnpp(net)
    factor = 2 ** (len(net.channels) - 1)
    if any(side % factor for side in net.size):
        raise ValueError(
            f"a UNet2DModel halves images of {net.size[0]} x {net.size[1]} pixels {len(net.channels) - 1} times, which "
            f"must divide evenly: type model.multipliers=[...] with fewer levels, or choose data whose sides are "
            f"multiples of {factor}"
        )
    attends = [bool(len(stage["attention"])) for stage in net.down]
    groups = groups_of(net, attends, ncsnpp)
    kind = "Skip" if ncsnpp else ""
    down = [f"Attn{kind}DownBlock2D" if attend else f"{kind}DownBlock2D" for attend in attends]
    up = [f"Attn{kind}UpBlock2D" if attend else f"{kind}UpBlock2D" for attend in reversed(attends)]
    heads = net.middle[1].heads
    with_attention = {channels for channels, attend in zip(net.channels, attends, strict=True) if attend}
    if heads > 1 and len(with_attention | {net.channels[-1]}) > 1:  # the middle has attention too
        raise ValueError("a UNet2DModel of several heads has the same channels in each attention; type model.heads=1")
    return {
        "sample_size": net.size[0] if net.size[0] == net.size[1] else list(net.size),
        "in_channels": net.first.in_channels,
        "out_channels": net.first.in_channels,
        "center_input_sample": ncsnpp and net.data_range == 2,
        "time_embedding_type": "fourier" if ncsnpp else "positional",
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": net.channels,
        "layers_per_block": net.blocks,
        "mid_block_scale_factor": math.sqrt(2) if ncsnpp else 1,
        "downsample_padding": 0,
        "dropout": net.dropout,
        "act_fn": "silu",
        "attention_head_dim": None if heads == 1 else net.channels[-1] // heads,
        "norm_num_groups": groups,
        "norm_eps": 1e-6,
        "add_attention": True,
    }


def groups_of(net: NCSNpp, attends: list[bool], ncsnpp: bool) -> int | None:
    """Returns ``norm_num_groups`` of a UNet2DModel with the network's normalisations; ValueError if there is none.

    Arguments:
        attends: for each level, whether it has attention.
        ncsnpp: the value of :func:`is_ncsnpp`.
    """
    sizes = {module.num_channels: module.num_groups for module in net.modules() if isinstance(module, nn.GroupNorm)}
    if not ncsnpp:
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"a UNet2DModel of DDPM's kind has one number of groups everywhere, but this network has "
                f"{sorted(set(sizes.values()))}: type model.groups=32 with a multiple of 32 for model.width, or "
                f"another number that divides it"
            )
        return next(iter(sizes.values()))
    bad = [size for size, groups in sizes.items() if groups != min(size // 4, 32)]
    if bad:
        raise ValueError(
            f"a UNet2DModel of NCSN++'s kind normalises min(C/4, 32) groups of C channels, but this network "
            f"{sizes[bad[0]]} of {bad[0]}: type model.groups=null, and choose model.width and model.multipliers so "
            f"that min(C/4, 32) divides the channels C of each level, and of each concatenation of two"
        )
    narrow = [size for size, attend in zip(net.channels, attends, strict=True) if attend and size < 128]
    if narrow:
        raise ValueError(
            f"a UNet2DModel of NCSN++'s kind normalises 32 groups of channels in the attention of its levels, but this "
            f"network min(C/4, 32) of {narrow[0]}: type model.attention=[], or model.width=128"
        )
    return 32 if min(net.channels) >= 128 else None


def follows_scheduler(net: nn.Module) -> bool:
    """Returns whether the network takes a step number: diffusers' scheduler then says what its output means."""
    return isinstance(net, DiffusersUNet) or isinstance(getattr(net, "features", None), Positional)


def check_output(net: nn.Module, sign: int) -> None:
    """Raises a ValueError for a network that takes a step number and does not predict the noise.

    Arguments:
        sign: the value of :func:`scoresde.models.convention.convention`.
    """
    if follows_scheduler(net) and sign > 0:
        raise ValueError(
            "networks of diffusers that take a step number predict the noise, but this one sigma times the score: "
            "choose it with experiment=score_sde/vp_steps, or model.embedding=fourier"
        )


def layout(net: nn.Module) -> list[Entry]:
    """Returns the tensors of the UNet2DModel of :func:`config`; ValueError if there is none."""
    config(net)  # raises the ValueError
    state = net.state_dict()
    if isinstance(net, DiffusersUNet):
        return [entry(state, name.removeprefix("unet."), name) for name in state]
    return [
        entry(state, f"{theirs}.{end}", f"{ours}.{end}", part, "matrix" if matrix and end == "weight" else "same")
        for theirs, ours, part, matrix in modules(net)
        for end in (("weight", "bias") if f"{ours}.weight" in state else ())
    ] + ([entry(state, "time_proj.weight", "features.frequencies")] if isinstance(net.features, RandomFourier) else [])


Row = tuple[str, str, int | None, bool]
"""A module's name in diffusers, its name here, which third of ours it is (None for all), and whether it is a matrix
(out, in) in diffusers and a 1 x 1 convolution here.
"""


def modules(net: NCSNpp) -> Iterator[Row]:
    """Yields a row for each module of a network that has weights."""

    def residual(theirs: str, ours: str, block: Residual) -> Iterator[Row]:
        for there, here in (
            ("norm1", "norm_1"), ("conv1", "conv_1"), ("time_emb_proj", "noise"), ("norm2", "norm_2"),
            ("conv2", "conv_2"), ("conv_shortcut", "shortcut"),
        ):  # fmt: skip
            if getattr(block, here) is not None:
                yield f"{theirs}.{there}", f"{ours}.{here}", None, False

    def attention(theirs: str, ours: str) -> Iterator[Row]:
        yield f"{theirs}.group_norm", f"{ours}.norm", None, False
        for third, there in enumerate(("to_q", "to_k", "to_v")):
            yield f"{theirs}.{there}", f"{ours}.qkv", third, True
        yield f"{theirs}.to_out.0", f"{ours}.out", None, True

    yield "conv_in", "first", None, False
    yield "time_embedding.linear_1", "noise.0", None, False
    yield "time_embedding.linear_2", "noise.2", None, False
    for side, stages in (("down", net.down), ("up", net.up)):
        for i, stage in enumerate(stages):
            theirs, ours = f"{side}_blocks.{i}", f"{side}.{i}"
            for j, block in enumerate(stage["blocks"]):
                yield from residual(f"{theirs}.resnets.{j}", f"{ours}.blocks.{j}", block)
            for j in range(len(stage["attention"])):
                yield from attention(f"{theirs}.attentions.{j}", f"{ours}.attention.{j}")
            last = "reduce" if side == "down" else "enlarge"
            if last in stage and net.residual == "biggan":
                yield from residual(f"{theirs}.resnet_{side}", f"{ours}.{last}", stage[last])
            elif last in stage:
                sampler = "downsamplers" if side == "down" else "upsamplers"
                yield f"{theirs}.{sampler}.0.conv", f"{ours}.{last}.conv", None, False
            if "join" in stage:
                yield f"{theirs}.skip_conv", f"{ours}.join.conv", None, False
            if "norm" in stage:  # in diffusers the finest level's norm and image are the last layers of the network
                finest = i == len(stages) - 1
                norm, image = (
                    ("conv_norm_out", "conv_out") if finest else (f"{theirs}.skip_norm", f"{theirs}.skip_conv")
                )
                yield norm, f"{ours}.norm", None, False
                yield image, f"{ours}.image", None, False
    yield from residual("mid_block.resnets.0", "middle.0", net.middle[0])
    yield from attention("mid_block.attentions.0", "middle.1")
    yield from residual("mid_block.resnets.1", "middle.2", net.middle[2])
    if net.progressive == "none":
        yield "conv_norm_out", "last_norm", None, False
        yield "conv_out", "last", None, False


OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of the maps of an attention before diffusers 0.15, which files on the Hub still use."""


def present(name: str) -> str:
    """Returns the name in today's diffusers of a tensor that a file names as today or as before 0.15."""
    words = name.split(".")
    if len(words) > 2 and "attentions" in words:
        words[-2] = OLDER.get(words[-2], words[-2])
    return ".".join(words)
