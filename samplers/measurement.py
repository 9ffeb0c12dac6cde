r"""A measurement y of every sample x_0, in model units, of a batch, and its law for Gaussian x_0.

.. math:: y = A x_0 + s\,n, \qquad x_0 \sim N(m, r I) \;\Rightarrow\; y \sim N(A m,\ r A A^T + s^2 I) .

Conditioners take their m and r from the law that they assume of x_0: PiGDM and TDS m = E[x_0 | x_t] with one r for all
directions, ExactPosterior the m and r of each component of a mixture.
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
        draws: the number of consecutive samples with the same y, which are draws from one posterior.
    """

    operator: Operator
    y: Tensor
    noise: float
    draws: int = 1

    def rows(self, rows: Tensor) -> "Measurement":
        """Returns the measurement of some samples, by their batch indices (b,), with ``draws`` = 1."""
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
        """Returns log N(y; A m, r A A^T + s^2 I) in nats without the terms that depend on neither m nor r (2 pi, and
        what of y lies outside A's range); (B, *) and (B,) to (B,).
        """

        def root(e: Tensor) -> Tensor:
            return torch.where(e > 0, (e * (along(r, e) * e + self.noise**2)).rsqrt(), 0.0)

        whitened = self.operator.function(root, self.operator.transpose(self.residual(m)))
        log_det = self.operator.trace(lambda e: (along(r, e) * e + self.noise**2).log(), m)
        return -0.5 * (whitened.flatten(1).square().sum(1) + log_det)

    def replace(self, x: Tensor, target: Tensor, alpha: float, sigma: float, z: Tensor) -> Tensor:
        """Returns x with its part in the row space of A replaced by alpha A^+ y + sigma z.

        In the direction of an eigenvalue lambda, alpha A^+ y has noise of std alpha s/sqrt(lambda) of its own, and only
        the rest of the variance sigma^2 is added. A direction in which alpha A^+ y has more noise than sigma stays as
        it is.

        Arguments:
            x, z: shape (B, *); z is standard normal.
            target: A^+ y, (B, *).
        """

        def added_variance(e: Tensor) -> Tensor:
            return sigma**2 - (alpha * self.noise) ** 2 / torch.where(e > 0, e, 1.0)

        def added_std(e: Tensor) -> Tensor:
            return torch.where(e > 0, added_variance(e).clamp_min(0).sqrt(), 0.0)

        def is_replaced(e: Tensor) -> Tensor:
            return ((e > 0) & (added_variance(e) >= 0)).to(e.dtype)

        return x + self.operator.function(is_replaced, alpha * target - x) + self.operator.function(added_std, z)

    @property
    def target(self) -> Tensor:
        """A^+ y, (B, *)."""
        return self.operator.pseudo_inverse(self.y)

    def hold(self, x: Tensor) -> Tensor:
        """Returns the x' nearest to x with A x' = y if the measurement is exact, and x itself if it has noise."""
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

    If the scale is one number, y and its noise are divided by it; else they stay in data units, and A takes the scale.

    Arguments:
        operator: A, with its noise, in data units.
        y: in data units, float64.
        shift, scale: of the data, tensors of one value, or of the shape of one sample.
        dtype, device: of the result's y.
        draws: the number of consecutive samples with the same y.
    """
    origin = operator(shift.to(y).expand(1, *operator.shape))
    y = y - origin.to(y)
    if scale.numel() == 1:
        y, noise = y / scale.to(y).reshape(()), operator.noise / float(scale)
    else:
        operator, noise = operator.columns(scale.expand(operator.shape)), operator.noise
    return Measurement(operator, y.to(device, dtype), noise, draws)
