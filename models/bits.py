r"""A network read as a belief about bits: the log-odds of each bit of x_0 being 1, given the noisy row x_n of -1 and 1.

By Bayes' rule the log-odds are those from all *other* bits of x_n, and what the bit itself says,

.. math:: \log\frac{P(x_0^i = 1 \mid x_n)}{P(x_0^i = -1 \mid x_n)}
          = F_\theta(x_n, c)^i + \log\frac{1 + \alpha}{1 - \alpha}\,x_n^i, \qquad \alpha = k_n

of the binomial chain (:mod:`scoresde.sde_lib.binary`): the second term is large where there is little noise, and known.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain

from .parameterisation import Parameterisation


@dataclass(frozen=True)
class Bits(Parameterisation):
    """The network predicts what the other bits say of each.

    Attributes:
        process: the forward process that it is for.
    """

    process: ClassVar[type] = BinaryChain

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 2 * torch.log((1 + alpha) / sigma), torch.ones_like(alpha), torch.ones_like(alpha)
