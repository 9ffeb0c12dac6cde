r"""The parameterisation of the binomial chain: log-odds that each bit of x_0 is 1, given the noisy x_n of -1 and 1.

By Bayes' rule the log-odds are the sum of the log-odds given all *other* bits of x_n and of a term for the bit itself,

.. math:: \log\frac{P(x_0^i = 1 \mid x_n)}{P(x_0^i = -1 \mid x_n)}
          = F_\theta(x_n, c)^i + \log\frac{1 + \alpha}{1 - \alpha}\,x_n^i, \qquad \alpha = k_n

of the binomial chain (:mod:`scoresde.sde_lib.binary`). The second term is large if there is little noise, and it has a
closed form. With this parameterisation a :class:`scoresde.models.ScoreModel` returns the log-odds and no score.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain

from .parameterisation import Parameterisation


@dataclass(frozen=True)
class Bits(Parameterisation):
    """The network predicts the log-odds of each bit given the other bits.

    Attributes:
        process: the class of the forward process.
    """

    process: ClassVar[type] = BinaryChain

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # sigma^2 = (1 - alpha)(1 + alpha): without the cancellation in 1 - alpha
        return 2 * torch.log((1 + alpha) / sigma), torch.ones_like(alpha), torch.ones_like(alpha)
