r"""The discrete diffusion chain, as an SDE that agrees with it at whole times.

.. math::
    x_n \mid x_{n-1} \sim N\bigl(\sqrt{1-\beta_n}\,x_{n-1},\ \beta_n I\bigr), \qquad
    x_n \mid x_0 \sim N\bigl(\sqrt{\bar\alpha_n}\,x_0,\ (1-\bar\alpha_n) I\bigr), \quad
    \bar\alpha_n = \prod_{m \le n} (1 - \beta_m)

(arXiv 2006.11239, eq. 2 and 4; the chain of 1503.03585). Its time counts steps, n = 1 ... T. Between them it is the
variance-preserving SDE

.. math::
    dx = -\tfrac12 r(t)\,x\,dt + \sqrt{r(t)}\,dw, \qquad B(t) = \int_0^t r, \quad \alpha = e^{-B/2}, \quad
    \sigma^2 = 1 - e^{-B},

with :math:`B(n) = -\log\bar\alpha_n` at whole times, and between them the monotone cubic through these with slopes

.. math:: r(n) = \frac{2\,r_n r_{n+1}}{r_n + r_{n+1}}, \qquad r_n = -\log(1 - \beta_n)

(Fritsch and Butland 1984, doi 10.1137/0905021), so that r is positive and has no jumps, which would reduce a solver's
order in t. ``transition(n - 1, n)`` is the chain's own step, :math:`(\sqrt{1-\beta_n}, \sqrt{\beta_n})`. So no solver
depends on the chain: ancestral sampling on the uniform grid of T - 1 steps from T to 1 is the chain's, with its last
evaluation at 1, and every other sampler, the probability flow and the likelihood may evaluate the same network between
whole times too.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from .base import SDE, check_interval
from .betas import Betas, LinearBetas, betas_of

NEWTON = 12
"""Newton steps that invert the cubic of a step: more than float64 needs for the schedules of
:mod:`scoresde.sde_lib.betas`, on whose steps the slope varies by a factor of up to 8.
"""


@dataclass(frozen=True)
class Chain(SDE):
    """A Gaussian chain of T steps (arXiv 2006.11239, eq. 2).

    Arguments:
        schedule: the betas.
        T: the number of steps, which is the last time.
        eps: where the score is first trusted: by default after the first step.
    """

    schedule: Betas = field(default_factory=LinearBetas)
    T: float = 1000.0
    eps: float = 1.0
    counts_steps: ClassVar[bool] = True

    def __post_init__(self):
        self.betas  # noqa: B018 (refuses steps and schedules that do not go together)
        check_interval(self.T, self.eps)

    @cached_property
    def betas(self) -> Tensor:
        """beta_1 ... beta_T, shape (T,), float64."""
        # beta = 1 would leave no signal, and lambda would not be finite
        return betas_of(self.schedule, self.T, most=1 - 2**-20)

    @cached_property
    def table(self) -> Tensor:
        """B(n - 1), B(n) - B(n - 1), r(n - 1) and r(n) of the steps n = 1 ... T, shape (4, T), float64."""
        rise = -torch.log1p(-self.betas)
        inner = 2 * rise[:-1] * rise[1:] / (rise[:-1] + rise[1:])
        # one-sided differences at n = 0 and at n = T, within limits that keep the cubic monotone
        first, last = (
            ((3 * outer - next_to_it) / 2).clamp(outer / 2, 2 * outer)
            for outer, next_to_it in ((rise[:1], rise[1:2]), (rise[-1:], rise[-2:-1]))
        )
        slope = torch.cat([first, inner, last])
        return torch.stack([rise.cumsum(0) - rise, rise, slope[:-1], slope[1:]])

    def pieces(self, t: Tensor) -> tuple[Tensor, ...]:
        """Returns the share of its step that has passed at t, and the step's column of the table; each of t's shape, in
        float64.
        """
        t = double(t)
        n = t.detach().long().clamp(0, self.table.shape[1] - 1)
        return t - n, *self.table.to(t.device)[:, n].unbind(0)

    def rate(self, t: Tensor) -> Tensor:
        """Returns r(t), float64."""
        return rate(*self.pieces(t))

    def integral(self, t: Tensor) -> Tensor:
        """Returns B(t), float64."""
        return integral(*self.pieces(t))

    def f(self, t: Tensor) -> Tensor:
        return (-0.5 * self.rate(t)).to(t)

    def g(self, t: Tensor) -> Tensor:
        return self.rate(t).sqrt().to(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t)).to(t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(-self.integral(t)).neg().sqrt().to(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        B = self.integral(t)
        return (-0.5 * (B + torch.expm1(-B).neg().log())).to(t)

    def time(self, half_log_snr: Tensor) -> Tensor:
        B = torch.nn.functional.softplus(-2 * double(half_log_snr))  # exp(2 lambda) = 1 / (exp(B) - 1)
        table = self.table.to(B.device)
        n = (torch.searchsorted(table[0].contiguous(), B.detach().contiguous()) - 1).clamp_min(0)
        piece = table[:, n].unbind(0)
        u = ((B - piece[0]) / piece[1]).clamp(0, 1)
        for _ in range(NEWTON):
            u = (u - (integral(u, *piece) - B) / rate(u, *piece)).clamp(0, 1)
        return (n + u).to(half_log_snr)


def integral(u: Tensor, start: Tensor, rise: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Returns the cubic on [0, 1] from ``start`` to ``start + rise`` with these slopes at its ends, at u."""
    return start + u * (left + u * (3 * rise - 2 * left - right + u * (left + right - 2 * rise)))


def rate(u: Tensor, start: Tensor, rise: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Returns the derivative of :func:`integral` at u."""
    return left + u * (2 * (3 * rise - 2 * left - right) + 3 * u * (left + right - 2 * rise))


def double(t: Tensor) -> Tensor:
    """Returns t in float64, since float32 rounds a time among T steps; on the CPU for mps, which has no float64."""
    return t.to("cpu" if t.device.type == "mps" else t.device, torch.float64)
