r"""The Gaussian with the data's mean and covariance, under the kernel of any SDE.

.. math:: p_t \approx N\bigl(\alpha m,\ \alpha^2 C + \sigma^2 I\bigr), \qquad
          C = U\,\mathrm{diag}(l - r)\,U^\top + r I

with U (D, k) orthonormal, l the variances along its columns and r the one variance of all other directions (k = D is
the full covariance). Its score, the divergence of that score and its density have closed forms that cost at most two
products with U. It approximates p_T where the prior N(0, sigma(T)^2 I) is too coarse, and it is the control variate of
the random estimates of the likelihood.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE
from scoresde.sde_lib.products import row_product

PAIRED = 1000  # the most points whose pairs estimate the cumulants


@dataclass(frozen=True)
class Moments:
    """The mean (D,), the variances (k,) along the columns of directions (D, k), and the rest r, in model units."""

    mean: Tensor
    variances: Tensor
    directions: Tensor
    rest: float

    def to(self, like: Tensor) -> "Moments":
        """Returns the moments on the device and in the dtype of a tensor."""
        return Moments(self.mean.to(like), self.variances.to(like), self.directions.to(like), self.rest)

    def spread(self, sde: SDE, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the variances of p_t along the directions (B, k) and along all others (B, 1), at t (B,)."""
        alpha2, sigma2 = sde.alpha(t).square()[:, None], sde.sigma(t).square()[:, None]
        return alpha2 * self.variances.to(t) + sigma2, alpha2 * self.rest + sigma2

    def precision(self, v: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """Returns (alpha^2 C + sigma^2 I)^{-1} v, minus the Jacobian of the score times v; v (..., B, D), t (B,)."""
        along, others = (variance.to(v.dtype) for variance in self.spread(sde, t))
        directions = self.directions.to(v)
        coordinates = row_product(v, directions.T)
        return v / others + row_product((1 / along - 1 / others) * coordinates, directions)

    def trace(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns the trace of (alpha^2 C + sigma^2 I)^{-1}, shape (B,)."""
        along, others = self.spread(sde, t)
        return (1 / along).sum(1) + (len(self.mean) - along.shape[1]) / others[:, 0]

    def divergence_at_end(self, x: Tensor, sde: SDE) -> float:
        r"""Returns KL(p_T || this Gaussian) in nats, to leading order in the data's third and fourth cumulants.

        .. math:: KL \approx \tfrac1{12}\|\kappa_3\|^2 + \tfrac1{48}\|\kappa_4\|^2

        (Edgeworth's series; Comon 1994), with the cumulants of :math:`w = \alpha (\alpha^2 C + \sigma^2 I)^{-1/2}
        (x - m)`, to which the noise adds none. Their squared norms are estimated by means over pairs of points, the
        third's by E(w'v)^3. Standard errors are added, so that few points do not give too small a result. In many
        dimensions the fourth's may be too small nevertheless, since its C is of the same points.

        Arguments:
            x: points of the data, (N, *) in model units, of which the first ``PAIRED`` are used; for fewer than two the
                result is 0.
        """
        end = torch.tensor([sde.T], dtype=torch.float64)
        along, others = (variance[0].sqrt() for variance in self.spread(sde, end))
        centred = x[:PAIRED].flatten(1).double() - self.mean.to(end)
        inside = centred @ self.directions.to(end)
        # all directions outside share one variance, so their part stays in the data's coordinates
        outside = (centred - inside @ self.directions.to(end).T) / others
        w = float(sde.alpha(end)) * torch.cat([inside / along, outside], 1)
        count = len(w)
        if count < 2:
            return 0.0
        products = w @ w.T
        products.fill_diagonal_(0)
        pairs = count * (count - 1)
        C = w.T @ w / count

        def upper(power: int, less: float = 0.0) -> float:
            """Returns the mean of (w'v)^power over the pairs, less a number and at least 0, plus its standard error:
            sqrt(2/pairs) times the rms, since for a third cumulant of 0 the terms have mean 0 given one point of the
            pair. For the fourth power it is rough.
            """
            terms = products.pow(power)
            return max(0.0, float(terms.sum()) / pairs - less) + math.sqrt(2 * float(terms.square().sum())) / pairs

        # |kappa_4|^2 = E (w'v)^4 - 6 E (w'C w)^2 + 3 |C|^4 + 6 |C^2|^2
        quadratic = torch.einsum("ni,ij,nj->n", w, C, w)
        squares = C @ C
        gaussian = 3 * float(C.square().sum()) ** 2 + 6 * float(squares.square().sum())
        return upper(3) / 12 + upper(4, 6 * float(quadratic.square().mean()) - gaussian) / 48

    def log_prob(self, x: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """Returns log N(x; alpha m, alpha^2 C + sigma^2 I) in nats, for x (B, *) and t (B,), shape (B,)."""
        along, others = self.spread(sde, t)
        centred = x.flatten(1) - sde.alpha(t)[:, None] * self.mean.to(t)
        logs = along.log().sum(1) + (len(self.mean) - along.shape[1]) * others[:, 0].log()
        quadratic = (centred * self.precision(centred, sde, t)).sum(1)
        return -0.5 * (quadratic + logs + len(self.mean) * math.log(2 * math.pi))
