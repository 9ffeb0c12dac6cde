r"""SEA and ShARK: solvers of the reverse SDE in variables in which its noise is a plain Brownian motion.

The methods are those of Foster, dos Reis and Strange (arXiv 2210.17543). With y = x/alpha and tau = (sigma/alpha)^2,
the variance of the noise in y, the reverse SDE of any SDE of :mod:`scoresde.sde_lib.base` becomes an SDE whose noise
depends on neither x nor t,

.. math:: dy = \tfrac{1+\eta^2}{2}\,\alpha\,s_\theta\,du + \eta\,dW_u, \qquad u = \tau_T - \tau ,

in the new time u, in which tau falls. For data N(0, q^2) the score is -y/(alpha V), V = tau + q^2. This linear part is
solved exactly: with c = (1 + eta^2)/2, v = V^{-c} y changes only through the remainder M,

.. math:: dv = M\,d(V^{-c}) + \eta\,dW_r, \qquad M = \frac{x}{\alpha} + \alpha V s_\theta(x, t),
    \qquad dr = V^{-2c}\,du, \quad r = V^{-\eta^2}/\eta^2,

(at eta = 0, r = -log V). In the clock r the noise is again a Brownian motion, constant and of unit rate: the order
conditions of the paper assume this. At eta = 1: with q = 0 the clock is 1/tau, the signal-to-noise ratio, and M is the
denoised x; with a large q the clock is linear in tau; with q the data's std it stays finite at both ends, and is
alpha^2 for VP with q = 1.

A step from t to s lasts h = r_s - r_t. It takes the increment W ~ N(0, h) of the Brownian path and, independently, the
space-time Levy area H ~ N(0, h/12), the mean height of the path above its chord. With f(v, r) = M dV^{-c}/dr,

.. math::
    \text{SEA (eq. 5.8):} \quad & v_s = v + h f(v + \eta(\tfrac12 W + H), r_t) + \eta W, \\
    \text{ShARK (eq. 6.1):} \quad & v_1 = v + \eta H, \quad
      v_2 = v + \tfrac56 h f(v_1, r_t) + \eta(\tfrac56 W + H), \\
    & v_s = v + h\bigl[\tfrac25 f(v_1, r_t) + \tfrac35 f(v_2, r_t + \tfrac56 h)\bigr] + \eta W,

SEA has strong order 1 with one evaluation, ShARK 3/2 with two. Weights that multiply M are scaled so that a constant M
is integrated exactly. At eta = 1 the weak order is 2 for both. For M is the denoised x plus q^2 times the score of y,
and both are martingales along the exact reverse process, so that M at t is the expectation of its later values.

In x, with L = log(V_t/V_s), no power of V is left. E is the weight of M, n the std of the noise in x at t, and z a
standard normal:

.. math:: x_s = \rho\,x + E\,M + \rho\,n\,z, \quad \rho = \frac{\alpha_s}{\alpha_t} e^{-cL}, \quad
    E = \alpha_s (1 - e^{-cL}), \quad n = \alpha_t \sqrt{V_t\,(e^{\eta^2 L} - 1)} .
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine

from .step import Step

LEVY = 12**-0.5
"""The std of H over that of W."""


def noise_variance(sde: SDE, t: Tensor) -> Tensor:
    """Returns tau = (sigma/alpha)^2."""
    return torch.exp(-2 * sde.half_log_snr(t))


@dataclass(frozen=True)
class Additive(Step):
    """The base class of SEA and ShARK: their arguments, and the exact solution for a constant M.

    Arguments:
        eta: the stochasticity, as in ``SDE.reverse``: 1 for the reverse SDE, 0 for the probability flow.
        sigma_data: q, the std of the data N(0, q^2 I) for which every step is exact; ``auto`` in the yaml takes the
            data's std.
    """

    eta: float = 1.0
    sigma_data: float = 1.0

    def __post_init__(self):
        for key, value, hint in (("eta", self.eta, "1 for the reverse SDE"), ("sigma_data", self.sigma_data, "auto")):
            if not 0 <= value < torch.inf:
                raise ValueError(f"`{key}`={value} must be at least 0 and finite; type `{key}`={hint}")

    @property
    def normals(self) -> int:
        return 2 if self.eta else 0

    def spread(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns V = tau + q^2."""
        return noise_variance(sde, t) + self.sigma_data**2

    def fall(self, sde: SDE, t: Tensor, s: Tensor) -> Tensor:
        """Returns L = log(V_t/V_s), without cancellation."""
        return torch.log1p((noise_variance(sde, t) - noise_variance(sde, s)) / self.spread(sde, s))

    def clock(self, L: Tensor) -> Tensor:
        """Returns V_t^{eta^2} (r_s - r_t), the scaled duration of a step over which V falls by the factor e^-L."""
        return torch.expm1(self.eta**2 * L) / self.eta**2 if self.eta else L

    def exact(self, sde: SDE, t: Tensor, s: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (rho, E) of x_s = rho x_t + E M, the solution for a constant M without noise."""
        c = (1 + self.eta**2) / 2
        return sde.alpha(s) / sde.alpha(t) * torch.exp(-c * L), -sde.alpha(s) * torch.expm1(-c * L)

    def noise(self, sde: SDE, t: Tensor, L: Tensor) -> Tensor:
        """Returns n, the std at t, in units of x, of the noise eta W of the step."""
        return self.eta * sde.alpha(t) * torch.sqrt(self.spread(sde, t) * self.clock(L))

    def remainder(self, sde: SDE, t: Tensor, factor: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Returns (A, C) such that A x + C score = ``factor`` M, with M = x/alpha + alpha V score."""
        alpha = sde.alpha(t)
        return factor / alpha, factor * alpha * self.spread(sde, t)


def rows(*columns: Tensor) -> list[tuple[float, ...]]:
    """Transposes tensors (N,) to one tuple of numbers per step."""
    return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class SEA(Additive):
    """Shifted Euler for additive noise: one evaluation a step, local error O(h^2); Euler-Maruyama's is O(h^{3/2})."""

    def prepare(self, sde: SDE, grid: Tensor) -> list[tuple[float, ...]]:
        """Returns (t, n/2, n/sqrt(12), A, C, rho, rho n) for each step."""
        t, s = grid[:-1], grid[1:]
        L = self.fall(sde, t, s)
        n, (rho, E) = self.noise(sde, t, L), self.exact(sde, t, s, L)
        return rows(t, n / 2, n * LEVY, *self.remainder(sde, t, E), rho, rho * n)

    def __call__(
        self, row: tuple[float, ...], score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        t, half, levy, A, C, rho, n = row
        shifted = torch.add(torch.add(x, z[0], alpha=half), z[1], alpha=levy) if z else x
        mean = torch.add(score(shifted, t, A, C), x, alpha=rho)
        return torch.add(mean, z[0], alpha=n) if z else mean, mean, None


class Stages(NamedTuple):
    """The coefficients of one step of ShARK, in the order in which the step uses them.

    x_1 = x + levy z_1, stage = A_1 x_1 + C_1 score(x_1, t), x_2 = stage + part z_0, and
    x_s = A_2 x_2 + C_2 score(x_2, m) + early stage + back x_1 + rho x + n z_0.
    """

    t: float
    levy: float
    A_1: float
    C_1: float
    part: float
    m: float
    A_2: float
    C_2: float
    early: float
    back: float
    rho: float
    n: float


@dataclass(frozen=True)
class ShARK(Additive):
    """Shifted additive-noise Runge-Kutta: two evaluations a step, strong order 3/2."""

    def inside(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the second stage's time, after 5/6 of the step's clock, and log(V_t/V) there."""
        passed = 5 / 6 * self.clock(self.fall(sde, t, s))
        L = torch.log1p(self.eta**2 * passed) / self.eta**2 if self.eta else passed
        tau = noise_variance(sde, t) + self.spread(sde, t) * torch.expm1(-L)
        return torch.minimum(torch.maximum(sde.time(-0.5 * torch.log(tau)), s), t), L

    def prepare(self, sde: SDE, grid: Tensor) -> list[Stages]:
        t, s = grid[:-1], grid[1:]
        L, (m, L_m) = self.fall(sde, t, s), self.inside(sde, t, s)
        n, (rho, E), (rho_m, E_m) = self.noise(sde, t, L), self.exact(sde, t, s, L), self.exact(sde, t, m, L_m)
        A, C = self.remainder(sde, t, E_m)
        # the weight of the second stage: 3/5 of dV^{-c}/dr = c V^{c-1} there, relative to its value at t
        late = 0.6 * torch.exp((1 - self.eta**2) / 2 * L_m)
        late = late / (0.4 + late)
        early = E * (1 - late) / E_m  # the first stage's M is (stage - rho_m x_1)/E_m
        columns = (
            *(t, n * LEVY, rho_m + A, C, rho_m * n * 5 / 6),
            *(m, *self.remainder(sde, m, E * late), early, -early * rho_m, rho, rho * n),
        )
        return [Stages(*row) for row in rows(*columns)]

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        """Returns the times of all evaluations: t of each step, then the second stage's."""
        return grid[:-1].tolist() + self.inside(sde, grid[:-1], grid[1:])[0].tolist()

    def __call__(
        self, row: Stages, score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        t, levy, A_1, C_1, part, m, A_2, C_2, early, back, rho, n = row
        x_1 = torch.add(x, z[1], alpha=levy) if z else x
        stage = score(x_1, t, A_1, C_1)
        x_2 = torch.add(stage, z[0], alpha=part) if z else stage
        mean = torch.add(score(x_2, m, A_2, C_2), stage, alpha=early)
        mean = torch.add(torch.add(mean, x_1, alpha=back), x, alpha=rho)
        return torch.add(mean, z[0], alpha=n) if z else mean, mean, None
