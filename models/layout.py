"""The correspondence between the tensors of another code's network and those of a network of this code.

Other codes store the same weights in other shapes. The linear maps of the channels in attention, and in score_sde's
DDPM also the shortcuts, are matrices there, (in, out) in score_sde and (out, in) in diffusers, and 1 x 1 convolutions
(out, in, 1, 1) here. Queries, keys and values are three maps in both codes and one convolution here.
:mod:`scoresde.models.published` and :mod:`scoresde.models.unet2d` list the entries of a network; :func:`take` and
:func:`put` copy its weights to and from the other code's tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["same", "matrix", "transposed"]
"""The form in the other code: ``same`` as here, or the ``matrix`` (out, in) of a 1 x 1 convolution here, or that matrix
``transposed``, (in, out).
"""


@dataclass(frozen=True)
class Entry:
    """One tensor of the other code.

    Arguments:
        name: its name in the other code.
        own: the name of our tensor that contains it; None for a tensor that the other code stores but never uses.
        shape: its shape in the other code.
        part: 0, 1 or 2, if it is that third of the rows of our tensor; None if it is the whole tensor.
        form: its form in the other code.
        trained: whether it is part of the moving average in a published file, as only
            :mod:`scoresde.models.published` sets it.
    """

    name: str
    own: str | None
    shape: tuple[int, ...]
    part: int | None = None
    form: Form = "same"
    trained: bool = True

    def take(self, ours: Tensor) -> Tensor:
        """Returns the other code's tensor, from our tensor that contains it."""
        part = ours if self.part is None else ours.chunk(3)[self.part]
        matrix = part if self.form == "same" else part[:, :, 0, 0]
        return (matrix.T if self.form == "transposed" else matrix).contiguous()

    def put(self, ours: Tensor, theirs: Tensor) -> None:
        """Writes the other code's tensor into our tensor that contains it."""
        part = ours if self.part is None else ours.chunk(3)[self.part]
        matrix = theirs.T if self.form == "transposed" else theirs
        part.copy_(matrix if self.form == "same" else matrix[:, :, None, None])


def entry(state: Mapping[str, Tensor], name: str, own: str, part: int | None = None, form: Form = "same") -> Entry:
    """Returns an entry whose shape follows from our tensor ``own`` in ``state``, the state of our network."""
    whole = state[own] if part is None else state[own].chunk(3)[part]
    shape = tuple(whole.shape) if form == "same" else tuple(whole.shape[:2])
    return Entry(name, own, shape[::-1] if form == "transposed" else shape, part, form)


def take(net: nn.Module, entries: list[Entry]) -> dict[str, Tensor]:
    """Returns the weights by the other code's names, in the order of the entries; zeros for tensors never used."""
    state = net.state_dict()
    return {e.name: torch.zeros(e.shape) if e.own is None else e.take(state[e.own]) for e in entries}


@torch.no_grad()
def put(net: nn.Module, entries: list[Entry], tensors: Mapping[str, Tensor]) -> None:
    """Writes the other code's tensors into the network. The caller has checked their names and shapes."""
    state = net.state_dict()
    for e in entries:
        if e.own is not None:
            e.put(state[e.own], tensors[e.name])
