r"""Where the weights of the published NCSN++, DDPM++ and DDPM (arXiv 2011.13456) lie in ours.

The published code keeps all modules of a network in one list, in the order in which x meets them, and its own names in
each: ``all_modules.5.Conv_0.weight``. Its linear maps of the channels ("NIN") are matrices W (in, out). Its moving
average is a list of tensors without names, those of all trained parameters in that order.
"""

import dataclasses
from collections.abc import Iterator

from torch import nn

from .embedding import NoiseEmbedding, RandomFourier
from .layout import Entry, Form, entry
from .ncsnpp import Attention, Combine, NCSNpp, Residual
from .resample import Down, Up

Row = tuple[str, str, int | None, Form]
"""Their name, our name, which third of it, and how it is written there."""


def layout(net: nn.Module) -> list[Entry]:
    """The published tensors of a network in their order; ValueError for one that the published code does not have."""
    if not isinstance(net, NCSNpp):
        raise ValueError(
            f"model={type(net).__name__} has no published layout; type model=ncsnpp, model=ddpmpp or model=ddpm"
        )
    if net.known is not None:
        raise ValueError("the published layout knows no labels; leave data.condition out")
    if isinstance(net.features, NoiseEmbedding):
        raise ValueError(
            "the published layout knows no model.embedding=smooth; type model.embedding=fourier or positional"
        )
    if any(module.heads > 1 for module in net.modules() if isinstance(module, Attention)):
        raise ValueError("the published layout knows one attention head; type model.heads=1")
    if net.attention_up == "all":
        raise ValueError("the published layout has one attention a level; type model.attention_up=last")
    state, names = net.state_dict(), {module: name for name, module in net.named_modules()}
    entries, index = [], 0
    for part in net.parts():
        rows = list(rows_of(part, net.residual))
        if not rows and not isinstance(part, Down | Up):  # a sinusoidal embedding is a function there
            continue
        for theirs, ours, third, form in rows:
            found = entry(state, f"all_modules.{index}.{theirs}", f"{names[part]}.{ours}", third, form)
            entries.append(dataclasses.replace(found, trained=theirs != "W"))
        index += 1
    return entries


def rows_of(part: nn.Module, residual: str) -> Iterator[Row]:
    """The tensors of a part, in their order."""
    if isinstance(part, RandomFourier):
        yield "W", "frequencies", None, "same"
    elif isinstance(part, Residual):
        pairs = [("GroupNorm_0", "norm_1"), ("Conv_0", "conv_1"), ("Dense_0", "noise")]
        pairs += [("GroupNorm_1", "norm_2"), ("Conv_1", "conv_2"), ("Conv_2", "shortcut")]
        for theirs, ours in pairs:
            if getattr(part, ours) is None:
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
        for each in ("weight", "bias"):
            if hasattr(part, each):
                yield each, each, None, "same"


def plain(theirs: str, ours: str) -> Iterator[Row]:
    for each in ("weight", "bias"):
        yield f"{theirs}.{each}", f"{ours}.{each}", None, "same"


def linear(theirs: str, ours: str, third: int | None = None) -> Iterator[Row]:
    yield f"{theirs}.W", f"{ours}.weight", third, "transposed"
    yield f"{theirs}.b", f"{ours}.bias", third, "same"
