r"""The SDE whose time is its noise: sigma(t) = t.

.. math:: dx = \sqrt{2t}\,dw, \qquad \alpha = 1, \quad \sigma = t

(Karras et al., arXiv 2206.00364, the row "Ours (EDM)" of table 1). Along its probability flow dx/dt = (x - D(x; t))/t
is the noise, of unit std, that the denoiser D estimates in x: solution curves point at the data (section 3 there).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval


@dataclass(frozen=True)
class EDM(SDE):
    """dx = sqrt(2 t) dw, sigma(t) = t (arXiv 2206.00364, table 1).

    Arguments:
        T: the largest noise, in model units. Published: 80.
        eps: the smallest noise. Published: 0.002.
    """

    T: float = 80.0
    eps: float = 0.002

    def __post_init__(self):
        check_interval(self.T, self.eps)
        if not self.T <= LARGEST:
            raise ValueError(f"`T`={self.T} is the largest noise, at most {LARGEST:g}; published: `T`=80")

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return (2 * t).sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def even(self, share: Tensor) -> Tensor:
        """Returns times even in t^{1/7}, the published steps (arXiv 2206.00364, eq. 5): steps even in t would leave out
        the low noise levels.
        """
        start, stop = self.T ** (1 / 7), self.eps ** (1 / 7)
        return (start + (stop - start) * share) ** 7

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -t.log()

    def time(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-half_log_snr)
