r"""Temperature: samples that are more alike, or less, from the same network.

A temperature tau multiplies, on data N(m, s^2 I), the standard deviation of the samples: their density is then
p^{1/tau^2}. (Normalising flows do so by multiplying their noise by tau; arXiv 1807.03039.) For other data no method
that uses only the score of p_t samples from p^{1/tau^2}, since the score of its perturbed density is another function.
Two approximations are possible:

* :class:`TemperedNoise` multiplies the noise, that of the start and that of every step. With an ODE the codes are
  scaled; with a reverse SDE each of its normals. On N(0, s^2 I) every solver with fixed steps is linear in its noise,
  so that its samples are exactly tau times the untempered ones. On other data a reverse SDE makes each mode about tau
  times as wide and shifts some weight to modes whose codes lie in the middle; a deterministic flow narrows modes less.
* :class:`TemperedScore` replaces the score by that of N(m, (tau s)^2 I), computed from the score of N(m, s^2 I),

  .. math:: \tilde s(x, t) = \frac{\alpha^2 s^2 + \sigma^2}{\alpha^2 \tau^2 s^2 + \sigma^2}\; s_\theta(x, t),

  (arXiv 2510.01184 rescales so.) It is exact on a Gaussian under every solver, and the noise is unchanged. If the data
  are separate modes of one width s, each becomes tau times as wide and keeps its weight: a local temperature, whereas
  p^{1/tau^2} would move nearly all weight to the highest modes. s is the width of the modes to sharpen. The default is
  the data's own std, which is right for one mode; for several modes it is far too large, and they shrink too much.

`python -m benchmarks.temperature` measures all of this on a mixture.

A common rule divides the score by T and changes nothing else. It gives neither density: under VE from a wide prior the
reverse SDE's variance is then s^2 T/(2 - T) and the flow's std sigma(T) (s/sigma(T))^{1/T}, which depends on the start
of the SDE. We do not offer it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine, ScoreFn, affine, combinations, of_rows, per_sample, under


class Tempering(ABC):
    """Changes a sampler's score and noise for a temperature; at temperature 1 they stay bit for bit the same."""

    temperature: float

    @property
    def noise(self) -> float:
        """The factor of all normals, including those of the start."""
        return 1.0

    @abstractmethod
    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        """Returns the score for the sampler to use in place of ``score``."""

    def randn_like(self, source: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Returns a sampler's source of normals, scaled."""
        return source if self.noise == 1 else lambda x: self.noise * source(x)


def check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature`={temperature} must be positive; type `temperature`=1 for none")


@dataclass(frozen=True)
class TemperedNoise(Tempering):
    """Multiplies the noise by the temperature; see the module's text.

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
    """Replaces the score by that of data of another width; see the module's text.

    Arguments:
        temperature: tau; 1 for the model's own samples.
        sigma_data: s, the width in model units that becomes tau s; ``auto`` in the yaml takes the data's std.
    """

    temperature: float = 1.0
    sigma_data: float = 1.0

    def __post_init__(self):
        check_temperature(self.temperature)
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be positive; type `sigma_data`=auto")

    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        return score if self.temperature == 1 else Rescaled(sde, score, self)

    def factor(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns the score's factor, in the shape of t; it goes from 1 at much noise to 1/tau^2 without noise."""
        own, noise = (sde.alpha(t) * self.sigma_data).square(), sde.sigma(t).square()
        return (own + noise) / (self.temperature**2 * own + noise)


class Rescaled:
    """A score times a factor of the time, which keeps the score's own fast paths (:mod:`scoresde.sde_lib.affine`)."""

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
