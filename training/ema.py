"""An exponential moving average of the weights: a deep copy that follows."""

import copy

import torch
from torch import nn


class EMA:
    """Follows a model: w_ema <- d w_ema + (1 - d) w, with d = min(decay, (1 + n)/(10 + n)) after n updates.

    The warm-up of d forgets the first, random weights quickly.

    Arguments:
        model: the model to follow; :attr:`model` is the copy, in evaluation mode and without gradients.
        decay: the final d.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._pairs = list(self.model.parameters()), [p.detach() for p in model.parameters()]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """One step after the model's."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(*self._pairs, 1 - decay)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)
