r"""The Gaussian with the data's mean and covariance, carried along by any SDE.

.. math:: p_t \approx N\bigl(\alpha m,\ \alpha^2 C + \sigma^2 I\bigr), \qquad
          C = U\,\mathrm{diag}(l - r)\,U^\top + r I

with U (D, k) orthonormal, l the variances along its columns and r the one variance of all other directions (k = D is
the full covariance). Its score, divergence, density and denoising error have closed forms at the price of two products
with U: it stands for p_T where the prior N(0, sigma(T)^2 I) is too coarse, and it is the control variate of every
random estimate of the likelihood.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from sde_lib import SDE


@dataclass(frozen=True)
class Moments:
    """The mean (D,), the variances (k,) along the columns of directions (D, k), and the rest r, in model units."""

    mean: Tensor
    variances: Tensor
    directions: Tensor
    rest: float

    def to(self, like: Tensor) -> "Moments":
        """On the device and in the dtype of a tensor."""
        return Moments(self.mean.to(like), self.variances.to(like), self.directions.to(like), self.rest)

    def spread(self, sde: SDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """The variances of p_t along the directions (B, k) and along all others (B, 1), at t (B,)."""
        alpha2, sigma2 = sde.alpha(t).square()[:, None], sde.sigma(t).square()[:, None]
        return alpha2 * self.variances.to(t) + sigma2, alpha2 * self.rest + sigma2

    def precision(self, v: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """(alpha^2 C + sigma^2 I)^{-1} v for v (..., B, D) and t (B,): minus the Jacobian of the Gaussian's score."""
        along, others = (variance.to(v.dtype) for variance in self.spread(sde, t))
        coordinates = v @ self.directions.to(v)
        return v / others + ((1 / along - 1 / others) * coordinates) @ self.directions.to(v).T

    def trace(self, sde: SDE, t: Tensor) -> Tensor:
        """The trace of that inverse, shape (B,)."""
        along, others = self.spread(sde, t)
        return (1 / along).sum(1) + (len(self.mean) - along.shape[1]) / others[:, 0]

    def log_prob(self, x: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """log N(x; alpha m, alpha^2 C + sigma^2 I) in nats, x (B, *) and t (B,) to (B,)."""
        along, others = self.spread(sde, t)
        centred = x.flatten(1) - sde.alpha(t)[:, None] * self.mean.to(t)
        logs = along.log().sum(1) + (len(self.mean) - along.shape[1]) * others[:, 0].log()
        quadratic = (centred * self.precision(centred, sde, t)).sum(1)
        return -0.5 * (quadratic + logs + len(self.mean) * math.log(2 * math.pi))
