r"""One-step solvers of the reverse SDE.

Each is linear in x, the score s_theta(x, t) and the noise z:

.. math:: x_s = A\,x_t + C\,s_\theta(x_t, t) + N\,z

==================  =======================  ==================  ===================================
predictor           A                        C                   N
==================  =======================  ==================  ===================================
EulerMaruyama       :math:`1 - f\,h`         :math:`g^2 h`       :math:`g\sqrt h`, with h = t - s
ReverseDiffusion    :math:`2 - a`            :math:`b^2`         :math:`b`
Ancestral           :math:`1/a`              :math:`b^2/a`       :math:`b\,\sigma(s)/\sigma(t)`
==================  =======================  ==================  ===================================

f and g are taken at t; (a, b) is the transition x_t | x_s ~ N(a x_s, b^2 I). Reverse diffusion reverses the discretised
forward step x_t = x_s + (a - 1) x_s + b z (arXiv 2011.13456, eq. 45 and 46). Ancestral sampling draws from the Gaussian
posterior q(x_s | x_t, x_0) at the denoised x_0 (arXiv 2011.13456, appendix F). Its noise is the posterior's, which is
exact for data at one point. ``variance=forward`` takes the forward step's std b in place of N. Under VP, where it is
the published choice (eq. 4 there; arXiv 2006.11239, section 3.2), this is exact for data N(0, I).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine

from .step import Step

Row = tuple[float, float, float, float]
"""(t, A, C, N) of one step."""


class Predictor(Step):
    """A step x_s = A x + C score + N z."""

    @abstractmethod
    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (A, C, N) of the steps t -> s, in the shape of t."""

    def prepare(self, sde: SDE, grid: Tensor) -> list[Row]:
        t, s = grid[:-1], grid[1:]
        return list(zip(t.tolist(), *(c.tolist() for c in self.coefficients(sde, t, s)), strict=True))

    def __call__(
        self, row: Row, score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        t, A, C, N = row
        mean = score(x, t, A, C)
        return torch.add(mean, z[0], alpha=N), mean, None


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """The Euler-Maruyama method on the reverse SDE."""

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, g = t - s, sde.g(t)
        return 1 - sde.f(t) * h, g.square() * h, g * h.sqrt()


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """The discretised forward step, reversed (arXiv 2011.13456, eq. 46)."""

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = sde.transition(s, t)
        return 2 - a, b.square(), b


@dataclass(frozen=True)
class Ancestral(Predictor):
    """The posterior of x_s given x_t and the denoised x_0 (arXiv 2011.13456, eq. 47, for any SDE).

    Arguments:
        variance: the variance of the noise, ``posterior`` or ``forward``; see the module's text.
    """

    variance: Literal["posterior", "forward"] = "posterior"

    def __post_init__(self):
        if self.variance not in ("posterior", "forward"):
            raise ValueError(f"`variance`={self.variance} must be posterior or forward")

    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = sde.transition(s, t)
        noise = b if self.variance == "forward" else b * sde.sigma(s) / sde.sigma(t)
        return 1 / a, b.square() / a, noise


@dataclass(frozen=True)
class Rescale(Step):
    """The step x_s = x_t / a, which follows the kernel's mean from t to s without an evaluation.

    Annealed Langevin dynamics (arXiv 1907.05600, algorithm 1) leaves x as it is between its noise levels, where alpha
    is 1. Under an SDE whose alpha is not constant, this step leaves x/alpha as it is. A row is the number 1/a.
    """

    normals = 0

    def prepare(self, sde: SDE, grid: Tensor) -> list[float]:
        a, _ = sde.transition(grid[1:], grid[:-1])
        return (1 / a).tolist()

    def __call__(
        self, row: float, score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        x = x * row
        return x, x, None
