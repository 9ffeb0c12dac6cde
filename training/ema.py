"""An exponential moving average of a model's weights, in a copy of the model."""

import copy

import torch
from torch import nn


class EMA:
    """The moving average w_ema <- d w_ema + (1 - d) w, with d = min(decay, (1 + n)/(10 + n)) after n updates.

    Because d is small at first, the average forgets the initial random weights quickly. Buffers are not averaged but
    copied.

    Arguments:
        model: the model to average.
        decay: the final d.

    Attributes:
        model: the copy with the averaged weights, in evaluation mode and without gradients.
        updates: n, the number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._weights = list(self.model.parameters()), [p.detach() for p in model.parameters()]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average after an update of the model."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(*self._weights, 1 - decay)
        for copied, source in self._buffers:
            copied.copy_(source)
