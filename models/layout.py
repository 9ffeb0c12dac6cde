"""The correspondence of a tensor of another code's network to a tensor here.

Other codes store the same weights in other shapes. A linear map of the channels is a matrix (in, out) in one code,
(out, in) in another, and a 1 x 1 convolution (out, in, 1, 1) here. Queries, keys and values are three maps there and
one convolution here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["same", "matrix", "transposed"]
"""The form in another code: unchanged, or the matrix (out, in) or (in, out) of a 1 x 1 convolution."""


@dataclass(frozen=True)
class Entry:
    """One tensor of another code.

    Arguments:
        name: its name there.
        own: the name of the tensor here that contains it; None for a tensor that the other code stores but never uses.
        shape: its shape there.
        part: the third of the rows of our tensor that it is; None for all rows.
        form: its form there.
        trained: whether it is trained, and so part of a moving average.
    """

    name: str
    own: str | None
    shape: tuple[int, ...]
    part: int | None = None
    form: Form = "same"
    trained: bool = True

    def take(self, own: Tensor) -> Tensor:
        """Returns our tensor in the form of the other code."""
        own = own if self.part is None else own.chunk(3)[self.part]
        matrix = own if self.form == "same" else own[:, :, 0, 0]
        return (matrix.T if self.form == "transposed" else matrix).contiguous()

    def put(self, own: Tensor, theirs: Tensor) -> None:
        """Writes a tensor of the other code into ours."""
        place = own if self.part is None else own.chunk(3)[self.part]
        matrix = theirs.T if self.form == "transposed" else theirs
        place.copy_(matrix if self.form == "same" else matrix[:, :, None, None])


def entry(state: Mapping[str, Tensor], name: str, own: str, part: int | None = None, form: Form = "same") -> Entry:
    """Returns an entry whose shape follows from our tensor."""
    whole = state[own] if part is None else state[own].chunk(3)[part]
    shape = tuple(whole.shape) if form == "same" else tuple(whole.shape[:2])
    return Entry(name, own, shape[::-1] if form == "transposed" else shape, part, form)


def take(net: nn.Module, entries: list[Entry]) -> dict[str, Tensor]:
    """Returns the network's weights by their names there, in their order; zeros for tensors that are never used."""
    state = net.state_dict()
    return {e.name: torch.zeros(e.shape) if e.own is None else e.take(state[e.own]) for e in entries}


@torch.no_grad()
def put(net: nn.Module, entries: list[Entry], tensors: Mapping[str, Tensor]) -> None:
    """Writes weights into the network. Their names and shapes must match the entries."""
    state = net.state_dict()
    for each in entries:
        if each.own is not None:
            each.put(state[each.own], tensors[each.name])
