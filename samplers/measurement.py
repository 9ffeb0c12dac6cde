r"""A measurement y of every sample in a batch, in model units, and its law for Gaussian x_0.

.. math:: y = A x_0 + s\,n, \qquad x_0 \sim N(m, r I) \;\Rightarrow\; y \sim N(A m,\ r A A^T + s^2 I) .

Every conditioner here uses it: PiGDM takes m = E[x_0 | x_t] and an r, an isotropic component of a mixture has its own m
and r, and r = 0 gives the likelihood of x_0 = m itself.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .operators import Operator, along


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measurement of the samples of a batch.

    Attributes:
        operator: A.
        y: (B, *measured).
        noise: the std s.
        draws: the number of consecutive samples with the same y: they are draws from one posterior.
    """

    operator: Operator
    y: Tensor
    noise: float
    draws: int = 1

    def rows(self, rows: Tensor) -> "Measurement":
        """Returns the measurement of some samples, by their numbers (b,)."""
        return replace(self, operator=self.operator.rows(rows), y=self.y[rows], draws=1)

    def residual(self, x: Tensor) -> Tensor:
        """Returns y - A x, shape (B, *) to (B, *measured)."""
        return self.y - self.operator(x)

    def pull(self, residual: Tensor, r: Tensor) -> Tensor:
        """Returns A^T (r A A^T + s^2 I)^{-1} of a residual, shape (B, *measured) and r (B,) to (B, *)."""
        return self.operator.function(
            lambda e: torch.where(e > 0, 1 / (along(r, e) * e + self.noise**2), 0.0), self.operator.transpose(residual)
        )

    def log_prob(self, m: Tensor, r: Tensor) -> Tensor:
        """Returns log N(y; A m, r A A^T + s^2 I) in nats without the terms that depend on neither m nor r; (B, *) and
        (B,) to (B,).
        """

        def root(e: Tensor) -> Tensor:
            return torch.where(e > 0, (e * (along(r, e) * e + self.noise**2)).rsqrt(), 0.0)

        whitened = self.operator.function(root, self.operator.transpose(self.residual(m)))
        log_det = self.operator.trace(lambda e: (along(r, e) * e + self.noise**2).log(), m)
        return -0.5 * (whitened.flatten(1).square().sum(1) + log_det)

    def replace(self, x: Tensor, target: Tensor, alpha: float, sigma: float, z: Tensor) -> Tensor:
        """Returns x with its part in the row space of A replaced by alpha A^+ y + sigma z, ``target`` being A^+ y.

        A measurement with noise has noise of std s/sqrt(lambda) in A^+ y, so that as much less is added; in a direction
        in which A^+ y has more noise than x, x stays.
        """

        def added(e: Tensor) -> Tensor:
            return sigma**2 - (alpha * self.noise) ** 2 / torch.where(e > 0, e, 1.0)

        kept = self.operator.function(lambda e: ((e > 0) & (added(e) >= 0)).to(e.dtype), alpha * target - x)
        return x + kept + self.operator.function(lambda e: torch.where(e > 0, added(e).clamp_min(0).sqrt(), 0.0), z)

    @property
    def target(self) -> Tensor:
        """A^+ y, (B, *)."""
        return self.operator.pseudo_inverse(self.y)

    def hold(self, x: Tensor) -> Tensor:
        """Returns the nearest x that agrees with an exact measurement; for a measurement with noise x itself."""
        return x if self.noise else x + self.operator.pseudo_inverse(self.residual(x))


def in_model_units(
    operator: Operator,
    y: Tensor,
    shift: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    device: torch.device | str,
    draws: int = 1,
) -> Measurement:
    """Returns a measurement of data scale x + shift, given in data units, as one of x in model units.

    Arguments:
        operator: A, with its noise, in data units.
        y: in data units, float64.
        shift, scale: of the data, numbers or of the shape of one sample.
        draws: the number of consecutive samples with the same y.
    """
    origin = operator(shift.to(y).expand(1, *operator.shape))
    y = y - origin.to(y)
    if scale.numel() == 1:
        y, noise = y / scale.to(y).reshape(()), operator.noise / float(scale)
    else:
        operator, noise = operator.columns(scale.expand(operator.shape)), operator.noise
    return Measurement(operator, y.to(device, dtype), noise, draws)
