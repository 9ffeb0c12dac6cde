"""A tensor of another code's network, and the tensor here that holds it.

Other codes keep the same numbers in other shapes: a linear map of the channels is a matrix (in, out) in one, (out, in)
in another, and a convolution of 1 x 1 pixels (out, in, 1, 1) here; queries, keys and values are three maps there and
one convolution here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["same", "matrix", "transposed"]
"""As it is, or of a convolution of 1 x 1 pixels the matrix (out, in), or (in, out)."""


@dataclass(frozen=True)
class Entry:
    """One tensor.

    Arguments:
        name: what it is called there.
        own: the name of the tensor here that holds it; None for one that the other code keeps and never uses.
        shape: its shape there.
        part: which third of our tensor's rows it is; None for the whole.
        form: how it is written there.
        trained: whether it is a trained one, and so in a moving average.
    """

    name: str
    own: str | None
    shape: tuple[int, ...]
    part: int | None = None
    form: Form = "same"
    trained: bool = True

    def take(self, own: Tensor) -> Tensor:
        """Our tensor as it is written there."""
        own = own if self.part is None else own.chunk(3)[self.part]
        matrix = own if self.form == "same" else own[:, :, 0, 0]
        return (matrix.T if self.form == "transposed" else matrix).contiguous()

    def put(self, own: Tensor, theirs: Tensor) -> None:
        """Writes their tensor into ours."""
        place = own if self.part is None else own.chunk(3)[self.part]
        matrix = theirs.T if self.form == "transposed" else theirs
        place.copy_(matrix if self.form == "same" else matrix[:, :, None, None])


def entry(state: Mapping[str, Tensor], name: str, own: str, part: int | None = None, form: Form = "same") -> Entry:
    """An entry with the shape that our tensor gives it."""
    whole = state[own] if part is None else state[own].chunk(3)[part]
    shape = tuple(whole.shape) if form == "same" else tuple(whole.shape[:2])
    return Entry(name, own, shape[::-1] if form == "transposed" else shape, part, form)


def take(net: nn.Module, entries: list[Entry]) -> dict[str, Tensor]:
    """The network's weights by their names there, in their order; zeros for what is never used."""
    state = net.state_dict()
    return {e.name: torch.zeros(e.shape) if e.own is None else e.take(state[e.own]) for e in entries}


@torch.no_grad()
def put(net: nn.Module, entries: list[Entry], tensors: Mapping[str, Tensor]) -> None:
    """Puts weights into the network; their names and shapes have been checked against the entries."""
    state = net.state_dict()
    for each in entries:
        if each.own is not None:
            each.put(state[each.own], tensors[each.name])
