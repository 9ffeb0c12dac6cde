r"""Where the weights of a published NCSN++, DDPM++ or DDPM lie in ours, and back.

The published code keeps all modules of a network in one list, in the order in which x meets them, and its own names in
each: ``all_modules.5.Conv_0.weight``. A linear map of the channels ("NIN") is a matrix W (in, out) there and a
convolution of 1 x 1 pixels (out, in, 1, 1) here; queries, keys and values are three of them there and one convolution
here. Its moving average is a list of tensors without names, those of all trained parameters in that order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .embedding import NoiseEmbedding, RandomFourier
from .ncsnpp import Attention, Combine, NCSNpp, Residual
from .resample import Down, Up


@dataclass(frozen=True)
class Entry:
    """One published tensor.

    Arguments:
        name: its published name.
        own: the name of the tensor here that holds it.
        part: which third of that tensor's rows it is; None for the whole.
        matrix: whether it is a matrix (in, out) there and a convolution of 1 x 1 pixels here.
        trained: whether it is in the moving average.
        shape: its published shape.
    """

    name: str
    own: str
    part: int | None
    matrix: bool
    trained: bool
    shape: tuple[int, ...]

    def published(self, own: Tensor) -> Tensor:
        """Our tensor in the published form."""
        own = own if self.part is None else own.chunk(3)[self.part]
        return own[:, :, 0, 0].T if self.matrix else own

    def put(self, own: Tensor, published: Tensor) -> None:
        """Writes the published tensor into ours."""
        place = own if self.part is None else own.chunk(3)[self.part]
        place.copy_(published.T[:, :, None, None] if self.matrix else published)


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
    state, names = net.state_dict(), {module: name for name, module in net.named_modules()}
    entries, index = [], 0
    for part in net.parts():
        rows = list(tensors_of(part, net))
        if not rows and not isinstance(part, Down | Up):  # a sinusoidal embedding is a function there
            continue
        for theirs, ours, third, matrix in rows:
            own = f"{names[part]}.{ours}"
            tensor = state[own] if third is None else state[own].chunk(3)[third]
            shape = (tensor.shape[1], tensor.shape[0]) if matrix else tuple(tensor.shape)
            entries.append(Entry(f"all_modules.{index}.{theirs}", own, third, matrix, theirs != "W", shape))
        index += 1
    return entries


def tensors_of(part: nn.Module, net: NCSNpp) -> Iterator[tuple[str, str, int | None, bool]]:
    """(published name, our name, third, matrix) of each tensor of a part, in their order."""
    if isinstance(part, RandomFourier):
        yield "W", "frequencies", None, False
    elif isinstance(part, Residual):
        pairs = [("GroupNorm_0", "norm_1"), ("Conv_0", "conv_1"), ("Dense_0", "noise")]
        pairs += [("GroupNorm_1", "norm_2"), ("Conv_1", "conv_2"), ("Conv_2", "shortcut")]
        for theirs, ours in pairs:
            if getattr(part, ours) is None:
                continue
            if ours == "shortcut" and net.residual == "ddpm":
                yield "NIN_0.W", "shortcut.weight", None, True
                yield "NIN_0.b", "shortcut.bias", None, False
            else:
                yield from plain(theirs, ours)
    elif isinstance(part, Attention):
        yield from plain("GroupNorm_0", "norm")
        for third in range(3):
            yield f"NIN_{third}.W", "qkv.weight", third, True
            yield f"NIN_{third}.b", "qkv.bias", third, False
        yield "NIN_3.W", "out.weight", None, True
        yield "NIN_3.b", "out.bias", None, False
    elif isinstance(part, Down | Up):
        if part.conv is not None:
            yield from plain("Conv2d_0" if part.resample.taps else "Conv_0", "conv")
    elif isinstance(part, Combine):
        yield from plain("Conv_0", "conv")
    elif isinstance(part, nn.Linear | nn.Conv2d | nn.GroupNorm):
        for each in ("weight", "bias"):
            yield each, each, None, False


def plain(theirs: str, ours: str) -> Iterator[tuple[str, str, int | None, bool]]:
    for each in ("weight", "bias"):
        yield f"{theirs}.{each}", f"{ours}.{each}", None, False


def to_published(net: nn.Module) -> dict[str, Tensor]:
    """The network's weights by their published names, in their order."""
    state = net.state_dict()
    return {entry.name: entry.published(state[entry.own]).contiguous() for entry in layout(net)}


@torch.no_grad()
def from_published(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts weights of published names into the network; they have been checked against its :func:`layout`."""
    state = net.state_dict()
    for entry in layout(net):
        entry.put(state[entry.own], tensors[entry.name])
