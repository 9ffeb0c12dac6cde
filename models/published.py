r"""The correspondence of the published weights of NCSN++, DDPM++ and DDPM (arXiv 2011.13456) to the weights here.

The published code keeps all modules of a network in one list, in the order of the forward pass, with its own names in
each module: ``all_modules.5.Conv_0.weight``. Its linear maps of the channels ("NIN") are matrices W (in, out). Its
moving average is a list of tensors without names, of all trained parameters in that order. A network that does not take
the noise level still has the layers ``Dense_0`` for its features, and never uses them.

Names and shapes do not determine the function: ``model.name=ddpm`` has 32 groups of channels in every normalisation,
while ``model.name=ncsnpp`` with the same blocks has min(C/4, 32) for C channels. :func:`settings` returns the
configuration of the published code that computes the same function as a network here.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from .embedding import NoiseEmbedding, RandomFourier
from .layout import Entry, Form, entry
from .ncsnpp import Attention, Combine, NCSNpp, Residual
from .resample import Down, Up

Row = tuple[str, str | None, int | None, Form]
"""A tensor of a module: its published name, our name (None for a tensor that is never used), ``part`` and ``form`` of
:class:`scoresde.models.layout.Entry`.
"""


def layout(net: nn.Module) -> list[Entry]:
    """Returns the published tensors of a network in their order.

    Raises:
        ValueError: the published code has no such network.
    """
    if not isinstance(net, NCSNpp):
        raise ValueError(
            f"model={type(net).__name__} has no published layout; type model=ncsnpp, model=ddpmpp or model=ddpm"
        )
    if net.known is not None:
        raise ValueError("the published layout has no conditional networks; leave data.condition out")
    if isinstance(net.features, NoiseEmbedding):
        raise ValueError(
            "the published layout has no model.embedding=smooth; type model.embedding=fourier or positional"
        )
    if any(module.heads > 1 for module in net.modules() if isinstance(module, Attention)):
        raise ValueError("the published layout has one attention head; type model.heads=1")
    if net.attention_up == "all":
        raise ValueError("the published layout has one attention per level; type model.attention_up=last")
    name_of(net)
    state, names = net.state_dict(), {module: name for name, module in net.named_modules()}
    entries, index = [], 0
    for part in net.parts():
        rows = list(rows_of(part, net.residual))
        # without weights: a sinusoidal embedding is a function in the published code and has no place in the list of
        # modules, while Down and Up have one
        if not rows and not isinstance(part, Down | Up):
            continue
        for theirs, ours, third, form in rows:
            name = f"all_modules.{index}.{theirs}"
            if ours is None:  # from the 4 width features of the noise level to the block's channels
                shape = (part.conv_1.out_channels, 4 * net.first.out_channels)[: 2 if "weight" in name else 1]
                entries.append(Entry(name, None, shape))
                continue
            row = entry(state, name, f"{names[part]}.{ours}", third, form)
            entries.append(dataclasses.replace(row, trained=theirs != "W"))  # W: the frequencies of RandomFourier
        index += 1
    return entries


def name_of(net: NCSNpp) -> str:
    """Returns the published class with the network's normalisations, ``ncsnpp`` before ``ddpm``; else ValueError."""
    sizes = {module.num_channels: module.num_groups for module in net.modules() if isinstance(module, nn.GroupNorm)}
    if all(groups == min(size // 4, 32) for size, groups in sizes.items()):
        return "ncsnpp"
    plain = net.residual == "ddpm" and net.taps is None and net.weight == 1
    plain = plain and net.progressive == net.progressive_input == "none" and not isinstance(net.features, RandomFourier)
    if plain and set(sizes.values()) == {32} and net.features is None:
        raise ValueError("the published DDPM takes the noise level as input; type model.embedding=positional")
    if plain and set(sizes.values()) == {32}:
        return "ddpm"
    size = next(size for size, groups in sizes.items() if groups != min(size // 4, 32))
    rule = "the published NCSN++ and DDPM++ normalise min(C/4, 32) groups of C channels and DDPM 32"
    if sizes[size] == net.groups:
        other = ", or model.groups=32 with a multiple of 32 for model.width" if plain else ""
        raise ValueError(f"{rule}, but this network {net.groups} of {size}: type model.groups=null{other}")
    raise ValueError(
        f"{rule}, but min({size}/4, 32) does not divide the {size} channels of a level here: choose model.width and "
        f"model.multipliers so that each level, and each concatenation of two, has a multiple of 4 channels up to 128 "
        f"and of 32 above"
    )


def settings(net: NCSNpp) -> dict[str, Any]:
    """Returns the keys of the published code's ``config.model``, and ``data.image_size``, for a network.

    Raises:
        ValueError: no published class has the network's normalisations; see :func:`name_of`.
    """
    # the published code names a resolution by the width of the feature map
    name, fourier, sides = name_of(net), isinstance(net.features, RandomFourier), [net.size[1]]
    for _ in net.channels[1:]:
        sides.append(-(-sides[-1] // 2))
    keys = {
        "name": name,
        "image_size": net.size[1],
        "nf": net.first.out_channels,
        "ch_mult": [channels // net.first.out_channels for channels in net.channels],
        "num_res_blocks": net.blocks,
        "attn_resolutions": [side for side, stage in zip(sides, net.down, strict=True) if len(stage["attention"])],
        "resamp_with_conv": net.resample_with_conv,
        "conditional": net.features is not None,
    }
    if name == "ddpm":
        return keys
    return keys | {
        "resblock_type": net.residual,
        "fir": net.taps is not None,
        "fir_kernel": net.taps,
        "skip_rescale": net.weight < 1,
        "progressive": net.progressive,
        "progressive_input": net.progressive_input,
        "progressive_combine": net.combine,
        "embedding_type": "fourier" if fourier else "positional",
    }


def rows_of(part: nn.Module, residual: str) -> Iterator[Row]:
    """Yields the tensors of a module in their published order.

    Arguments:
        part: a module of :meth:`scoresde.models.NCSNpp.parts`.
        residual: the network's kind of block, ``biggan`` or ``ddpm``.
    """
    if isinstance(part, RandomFourier):
        yield "W", "frequencies", None, "same"
    elif isinstance(part, Residual):
        pairs = [("GroupNorm_0", "norm_1"), ("Conv_0", "conv_1"), ("Dense_0", "noise")]
        pairs += [("GroupNorm_1", "norm_2"), ("Conv_1", "conv_2"), ("Conv_2", "shortcut")]
        for theirs, ours in pairs:
            if getattr(part, ours) is None:
                if ours == "noise":
                    yield from (("Dense_0.weight", None, None, "same"), ("Dense_0.bias", None, None, "same"))
                continue
            if ours == "shortcut" and residual == "ddpm":
                yield from linear("NIN_0", "shortcut")
            else:
                yield from plain(theirs, ours)
    elif isinstance(part, Attention):
        yield from plain("GroupNorm_0", "norm")
        for third in range(3):
            yield from linear(f"NIN_{third}", "qkv", third)
        yield from linear("NIN_3", "out")
    elif isinstance(part, Down | Up):
        if part.conv is not None:
            yield from plain("Conv2d_0" if part.resample.taps else "Conv_0", "conv")
    elif isinstance(part, Combine):
        yield from plain("Conv_0", "conv")
    else:
        for name in ("weight", "bias"):
            if hasattr(part, name):
                yield name, name, None, "same"


def plain(theirs: str, ours: str) -> Iterator[Row]:
    """Yields the weight and the bias of a module that has the same form in both codes."""
    for name in ("weight", "bias"):
        yield f"{theirs}.{name}", f"{ours}.{name}", None, "same"


def linear(theirs: str, ours: str, third: int | None = None) -> Iterator[Row]:
    """Yields the matrix and the bias of a linear map of the channels; ``third`` of ours, if it is not None."""
    yield f"{theirs}.W", f"{ours}.weight", third, "transposed"
    yield f"{theirs}.b", f"{ours}.bias", third, "same"
