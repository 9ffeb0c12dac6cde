r"""A scalar energy whose gradient is the network: a score that is a gradient field by construction.

.. math::
    F(x, c) = -\nabla_x E(x, c), \qquad
    E(x, c) = \tfrac1{\sqrt D}\bigl(\tfrac12\|N(x, c)\|^2 - \langle x, N(x, c)\rangle\bigr)

for any network N, vectors or images: the form ties E to a network without a scalar head, and starts at E = 0 where
N starts at zero. Training differentiates twice, so a network must be smooth (SiLU, not ReLU).
"""

import math

import torch
from torch import Tensor, nn


class EnergyGradient(nn.Module):
    """Makes the negative gradient of an energy look like a network F(x, c).

    Arguments:
        net: the network N, mapping x (B, *), c (B,) and y, if it has one, to (B, *).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.condition = net, getattr(net, "condition", 0)

    def energy(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """E(x, c), shape (B, *) and (B,) to (B,); of a conditional network with its y (1 or B, condition)."""
        value = self.net(x, c, y)
        return (0.5 * value.square() - x * value).flatten(1).sum(1) / math.sqrt(x[0].numel())

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """-dE/dx at x (B, *), of x's shape; differentiable wherever gradients are on."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(x, c, y).sum(), x, create_graph=differentiable)
        return -gradient
