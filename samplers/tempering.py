r"""Temperature: samples closer to the modes, or further from them, than the network's own.

For data N(m, s^2 I) a temperature tau multiplies the std of the samples by tau; their density is then proportional to
p^{1/tau^2}. (Normalising flows multiply their noise by tau; arXiv 1807.03039.) For other data, p^{1/tau^2} cannot be
sampled with the score of p_t alone, because perturbing p^{1/tau^2} gives another score. There are two approximations:

* :class:`TemperedNoise` multiplies x_T and, for a reverse SDE, the noise of each step by tau. On N(0, s^2 I) every
  solver with fixed steps is linear in its noise, so that its samples are exactly tau times the untempered ones. On
  other data a reverse SDE makes each mode about tau times as wide and shifts some weight to modes whose x_T lie near 0;
  a deterministic flow narrows modes less.
* :class:`TemperedScore` replaces the score by that of N(m, (tau s)^2 I), computed from the score of N(m, s^2 I),

  .. math:: \tilde s(x, t) = \frac{\alpha^2 s^2 + \sigma^2}{\alpha^2 \tau^2 s^2 + \sigma^2}\; s_\theta(x, t),

  (the rescaling of arXiv 2510.01184). It is exact on a Gaussian under every solver, and the noise is unchanged. If the
  data are separate modes of one width s, each becomes tau times as wide and keeps its weight: a local temperature,
  whereas p^{1/tau^2} would move nearly all weight to the highest modes. s is the width of the modes to sharpen.
  ``sigma_data=auto``, the std of the whole data, fits one mode. For several modes it is too large, and each mode
  shrinks by more than tau.

``python -m benchmarks.temperature`` measures both on a mixture. The temperature of ``task=interpolate`` is something
else, a factor of the codes.

A common rule divides the score by a number c and changes nothing else. Under VE from a wide prior the variance of the
reverse SDE is then s^2 c/(2 - c), and the flow's std is sigma_T (s/sigma_T)^{1/c}, which depends on the largest noise
sigma_T. It samples neither p^{1/tau^2} nor locally sharpened modes, so it is not offered.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine, ScoreFn, affine, combinations, of_rows, per_sample, under


class Tempering(ABC):
    """Modifies a sampler's score and noise; at temperature 1 both are unchanged, bit for bit."""

    temperature: float

    @property
    def noise(self) -> float:
        """The factor of all normals, including those of the start."""
        return 1.0

    @abstractmethod
    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        """Returns the score for the sampler to use in place of ``score``."""

    def randn_like(self, source: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Returns a source of normals that multiplies those of ``source`` by ``noise``."""
        return source if self.noise == 1 else lambda x: self.noise * source(x)


def check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature`={temperature} must be positive and finite; type `temperature`=1 for none")


@dataclass(frozen=True)
class TemperedNoise(Tempering):
    """Multiplies all noise by the temperature tau: x_T, and the noise that the steps of a sampler draw.

    Arguments:
        temperature: tau; 1 for the model's own samples.
    """

    temperature: float = 1.0

    def __post_init__(self):
        check_temperature(self.temperature)

    @property
    def noise(self) -> float:
        return self.temperature

    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        return score


@dataclass(frozen=True)
class TemperedScore(Tempering):
    """Multiplies the score by (alpha^2 s^2 + sigma^2)/(alpha^2 tau^2 s^2 + sigma^2).

    Arguments:
        temperature: tau; 1 for the model's own samples.
        sigma_data: s, the width in model units that becomes tau s; ``auto`` in the yaml takes the data's std.
    """

    temperature: float = 1.0
    sigma_data: float = 1.0

    def __post_init__(self):
        check_temperature(self.temperature)
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be positive and finite; type `sigma_data`=auto")

    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        return score if self.temperature == 1 else Rescaled(sde, score, self)

    def factor(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns the score's factor, in the shape of t: 1 where sigma is large, 1/tau^2 at sigma = 0."""
        data_variance, noise_variance = (sde.alpha(t) * self.sigma_data).square(), sde.sigma(t).square()
        return (data_variance + noise_variance) / (self.temperature**2 * data_variance + noise_variance)


class Rescaled:
    """A score multiplied by the factor of ``tempering`` at t.

    It passes on the optional methods of a score: ``affine`` and ``combinations`` (:mod:`scoresde.sde_lib.affine`),
    ``under`` (:mod:`scoresde.sde_lib.frame`) and, if the score has it, ``of_rows`` (:mod:`scoresde.sde_lib.rows`).
    """

    def __init__(self, sde: SDE, score: ScoreFn, tempering: TemperedScore):
        self.sde, self.inner, self.tempering = sde, score, tempering
        if hasattr(score, "of_rows"):
            self.of_rows = lambda rows: Rescaled(sde, of_rows(score, rows), tempering)

    def factor(self, t: Tensor) -> Tensor:
        return self.tempering.factor(self.sde, t)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return per_sample(self.factor(t), x).to(x.dtype) * self.inner(x, t)

    def under(self, sde: SDE, other: SDE) -> "Rescaled":
        """Returns the same score under another SDE: the factor depends only on sigma/alpha."""
        return Rescaled(other, under(sde, self.inner, other), self.tempering)

    def affine(self, times: Iterable[float]) -> Affine:
        """Returns the function A x + C factor(t) score; the factors of ``times`` are computed once."""
        times = list(times)
        inner, cache = affine(self.inner, times), dict(zip(times, self.factors(times), strict=True))

        def evaluate(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
            factor = cache[t] if t in cache else self.factors([t])[0]
            return inner(x, t, A, C * factor)

        return evaluate

    def factors(self, times: list[float]) -> list[float]:
        return self.factor(torch.tensor(times, dtype=torch.float64)).tolist()

    def combinations(self, t: Tensor, A: Tensor, C: Tensor, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        return combinations(self.inner, t, A, C * self.factor(t), dtype)
