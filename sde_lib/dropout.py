"""Dropout with masks that are functions of (seed, layer, step, call, row); activation checkpointing preserves them.

Within :class:`Masks`, a context that training enters, the mask of a row depends neither on the part of the batch that
holds it nor on the device. Outside it a layer is torch's own dropout.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .draws import AHEAD, Draws, keys_of, mix, signed, stream_of

CALL = 1 << 44
"""The number of words of a layer's stream that belong to one call."""


class Dropout(nn.Module):
    """Sets each value to 0 with probability ``share`` in training, and divides the others by 1 - share.

    The probability is rounded to a multiple of 2^-16 within :class:`Masks`. The first dimension of the input counts the
    rows of the batch.

    Arguments:
        share: the probability, in [0, 1).
    """

    def __init__(self, share: float):
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"a share of dropped values of {share} does not lie in [0, 1)")
        self.share = share
        self.masks: Masks | None = None
        self.place, self.gamma, self.calls = 0, 1, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        if self.masks is None:
            return functional.dropout(x, self.share)
        dropped = min(round(self.share * 2**16), 2**16 - 1)
        keep = self.bits(x) >= dropped - 2**15
        # a float factor a value: a byte mask takes a quarter of the memory and a third more time
        return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))

    def bits(self, x: Tensor) -> Tensor:
        """Draws uniform signed 16-bit integers, in x's shape and on its device; each call since
        :meth:`Masks.at` has its own.

        Word j of row i in call c, of W words a row, is mix(key + gamma (CALL c + i W + j)); see
        :mod:`scoresde.sde_lib.draws`.
        """
        masks, values = self.masks, math.prod(x.shape[1:])
        width = -(-values // 4)  # words a row
        offset = masks.keys[self.place] + masks.first * signed(self.gamma * width)
        words = torch.arange(len(x) * width, device=masks.device)
        if len(x) > masks.count:  # a batch with copies of itself: the copies' rows follow all rows of the batch
            copy = words // (masks.count * width)
            words += copy * ((masks.total - masks.count) * width)
        words = words.mul_(self.gamma).add_(offset + signed(self.gamma * CALL * self.calls))
        self.calls += 1
        bits = mix(words).view(torch.int16).reshape(len(x), -1)[:, :values].reshape(x.shape)
        return bits.to(x.device)

    def extra_repr(self) -> str:
        return f"share={self.share}"


class Masks:
    """Makes the masks of a model's :class:`Dropout` layers functions of the step and the row, within a ``with`` block.

    Of what a forward pass reads, only tensors change from step to step, so that a compiled network is not recompiled.

    Arguments:
        model: the network, on its device.
        seed: the training's seed.

    Attributes:
        keys: the key of each layer at the step, (layers,), int64; see :func:`scoresde.sde_lib.draws.keys_of`.
        first: the place in the whole batch of the first row of the present part, (), int64.
        count, total: the number of rows of this part, and of the whole batch.
    """

    def __init__(self, model: nn.Module, seed: int):
        named = [(name, part) for name, part in model.named_modules() if isinstance(part, Dropout) and part.share]
        self.layers = [layer for _, layer in named]
        streams = [stream_of(seed, "dropout", name) for name, _ in named]
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.device = device if device.type in AHEAD else torch.device("cpu")
        self.gammas = [gamma for _, gamma in streams]
        self.starts = torch.tensor([start for start, _ in streams], dtype=torch.int64, device=self.device)
        self.keys, self.first = self.starts.clone(), torch.zeros((), dtype=torch.int64, device=self.device)
        self.coming, self.table = range(0), self.starts[None]
        self.count = self.total = 0

    def __enter__(self) -> "Masks":
        for place, layer in enumerate(self.layers):
            layer.masks, layer.place, layer.gamma = self, place, self.gammas[place]
        return self

    def __exit__(self, *_) -> None:
        for layer in self.layers:
            layer.masks = None

    def at(self, draws: Draws) -> None:
        """Moves to the step and the rows of ``draws``."""
        if self.layers:
            if draws.step not in self.coming:  # computes the keys of 256 steps at a time
                self.coming = range(draws.step, draws.step + 256)
                self.table = keys_of(self.starts, self.coming)
            self.keys.copy_(self.table[draws.step - self.coming.start])
            self.first.fill_(draws.first)
            self.count, self.total = draws.count, draws.total
            for layer in self.layers:
                layer.calls = 0


def recomputed(function: Callable[..., Tensor], within: nn.Module, *inputs: Tensor | torch.Size | None) -> Tensor:
    """Returns function(*inputs), with activations recomputed in the backward pass under the same masks.

    Arguments:
        within: the module whose layers the function calls.
        inputs: the function's arguments.
    """
    if torch.compiler.is_compiling():  # the graph recomputes masks from their keys
        return checkpoint(function, *inputs, use_reentrant=False)
    layers = [module for module in within.modules() if isinstance(module, Dropout)]
    calls = [layer.calls for layer in layers]
    return checkpoint(
        function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), counted_from(layers, calls))
    )


@contextmanager
def counted_from(layers: list[Dropout], calls: list[int]) -> Iterator[None]:
    """Sets the layers' call counters to ``calls`` within the context, and restores them after it."""
    before = [layer.calls for layer in layers]
    for layer, number in zip(layers, calls, strict=True):
        layer.calls = number
    try:
        yield
    finally:
        for layer, number in zip(layers, before, strict=True):
            layer.calls = number
