r"""A network that is the gradient of a scalar energy, so that the score is a gradient field by construction.

.. math::
    F(x, c) = -\nabla_x E(x, c), \qquad
    E(x, c) = \tfrac1{\sqrt D}\bigl(\tfrac12\|N(x, c)\|^2 - \langle x, N(x, c)\rangle\bigr)

for any network N of vectors or images, and D the number of values of a sample. Up to the factor 1/sqrt(D), which only
sets the scale, E is half of ||x - N||^2 - ||x||^2: the squared error with which N reconstructs x, less that of N = 0.
So N needs no scalar head, and E = 0 before training if the output of N is then zero. Training differentiates twice, so
N must be smooth (SiLU, not ReLU).
"""

import math

import torch
from torch import Tensor, nn


class EnergyGradient(nn.Module):
    """The network F(x, c) that is the negative gradient of an energy.

    Arguments:
        net: the network N, which maps x (B, *), c (B,) and y to (B, *); y is None unless the network is conditional.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.condition = net, getattr(net, "condition", 0)

    def energy(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns E(x, c), (B, *) and (B,) to (B,); a conditional network also takes y (1 or B, condition)."""
        value = self.net(x, c, y)
        return (0.5 * value.square() - x * value).flatten(1).sum(1) / math.sqrt(x[0].numel())

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns -dE/dx at x (B, *), in the shape of x; it is differentiable if gradients are on."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(x, c, y).sum(), x, create_graph=differentiable)
        return -gradient
