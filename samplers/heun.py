r"""EDM's second-order steps, for any SDE (arXiv 2206.00364, algorithm 2).

In y = x/alpha and kappa = sigma/alpha the probability flow of every SDE is the same ODE,

.. math:: \frac{dy}{d\kappa} = \frac{y - D}{\kappa} = -\sigma\,s_\theta(x, t), \qquad
    D = \frac{x + \sigma^2 s_\theta(x, t)}{\alpha},

with the denoised D. Heun's step goes to x' by the slope at t and corrects it by the mean of the slopes at both ends,

.. math::
    x' &= \tfrac{\alpha_s}{\alpha_t}\,x + \alpha_s(\kappa_t - \kappa_s)\,\sigma_t\,s_\theta(x, t), \\
    x_s &= \tfrac12\bigl[x' + \tfrac{\alpha_s}{\alpha_t}\,x
        + \alpha_s(\kappa_t - \kappa_s)\,\sigma_s\,s_\theta(x', s)\bigr].

Churning adds noise before the step, from kappa up to (1 + gamma) kappa, and the step starts there,

.. math:: \hat x = a\,x + S_{noise}\,b\,z, \qquad \gamma = \min(S_{churn}/N,\ \sqrt2 - 1)
    \text{ while } S_{min} \le \kappa \le S_{max},

where (a, b) is the SDE's own transition from t to the time at which its kappa is (1 + gamma) kappa, at most T. The grid
ends at eps, where kappa is not 0, so the last step is corrected too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine

from .step import Step

Descent = tuple[float, float, float, float, float, float]
"""(t, s, alpha_s/alpha_t, C at t, alpha_s/(2 alpha_t), C at s): one step of Heun's method."""


def noise_ratio(sde: SDE, t: Tensor) -> Tensor:
    """Returns kappa = sigma/alpha."""
    return torch.exp(-sde.half_log_snr(t))


def descents(sde: SDE, t: Tensor, s: Tensor) -> list[Descent]:
    """Returns the rows of Heun's steps t -> s."""
    ratio = sde.alpha(s) / sde.alpha(t)
    fall = sde.alpha(s) * (noise_ratio(sde, t) - noise_ratio(sde, s))
    columns = t, s, ratio, fall * sde.sigma(t), ratio / 2, fall * sde.sigma(s) / 2
    return list(zip(*(column.tolist() for column in columns), strict=True))


def descend(row: Descent, score: Affine, x: Tensor) -> Tensor:
    """Returns x_s from x_t by one of Heun's steps."""
    t, s, A, C, half, correction = row
    return torch.add(score(score(x, t, A, C), s, 0.5, correction), x, alpha=half)


@dataclass(frozen=True)
class Heun(Step):
    """A step of EDM's sampler; without churn it is deterministic and of second order.

    Arguments:
        churn: S_churn, the amount of noise that N steps add and remove again; 0 for none. Published for ImageNet: 40.
        churn_min, churn_max: S_min and S_max, the levels of sigma/alpha between which noise is added; churn_max=null
            for no upper bound. Published 0.05 and 50.
        noise: S_noise, a factor of that noise's std; published 1.003, for a network that removes too much.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float | None = None
    noise: float = 1.0

    def __post_init__(self):
        if not self.churn >= 0:
            raise ValueError(f"`churn`={self.churn} must be at least 0; type `churn`=0 for none")
        if not self.churn_min >= 0:
            raise ValueError(
                f"`churn_min`={self.churn_min} must be at least 0, a level of sigma/alpha; type `churn_min`=0"
            )
        if self.churn_max is not None and not self.churn_max > self.churn_min:
            raise ValueError(
                f"`churn_max`={self.churn_max} must be above `churn_min`={self.churn_min}; "
                f"type `churn_max`=null for no bound"
            )
        check_noise(self.noise)

    def starts(self, sde: SDE, grid: Tensor) -> Tensor:
        """Returns the times from which the N steps start, after churning, shape (N,)."""
        t, kappa = grid[:-1], noise_ratio(sde, grid[:-1])
        gamma = min(self.churn / len(t), 2**0.5 - 1)
        churned = (kappa >= self.churn_min) & (kappa <= (torch.inf if self.churn_max is None else self.churn_max))
        # rounding of the inverse may give a time below t, and a closed form one beyond T
        up = sde.time(-torch.log(kappa * (1 + gamma)))
        return torch.where(churned & (gamma > 0), torch.maximum(up, t).clamp_max(sde.T), t)

    def prepare(self, sde: SDE, grid: Tensor) -> list[tuple[float, float, Descent]]:
        """Returns (a, S_noise b, descent) for each step; b is 0 for steps without churning."""
        starts = self.starts(sde, grid)
        a, b = sde.transition(grid[:-1], starts)
        return list(zip(a.tolist(), (self.noise * b).tolist(), descents(sde, starts, grid[1:]), strict=True))

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        return [*self.starts(sde, grid).tolist(), *grid[1:].tolist()]

    def draws(self, row: tuple[float, float, Descent]) -> int:
        return int(row[1] > 0)

    @property
    def normals(self) -> int:
        return int(self.churn > 0)

    def __call__(
        self, row: tuple[float, float, Descent], score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        """The noise comes before the evaluations and none after them, so that mean is x_s itself."""
        a, b, down = row
        if z:
            x = torch.add(x * a, z[0], alpha=b)
        x = descend(down, score, x)
        return x, x, None


def check_noise(noise: float) -> None:
    if not 0 < noise < torch.inf:
        raise ValueError(f"`noise`={noise} must be positive; type `noise`=1")
