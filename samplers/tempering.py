r"""Temperature: samples that are more alike, or less, from the same network.

A temperature tau multiplies, on data N(m, s^2 I), the standard deviation of the samples: their density is then
p^{1/tau^2}. (So in normalising flows, whose noise tau multiplies; arXiv 1807.03039.) Beyond a Gaussian nothing that
works with the score of p_t alone samples from p^{1/tau^2}, since the score of its perturbed density is another
function. What can be had:

* :class:`TemperedNoise` multiplies the noise, that of the start and that of every step. With an ODE the codes are
  scaled; with a reverse SDE each of its normals. On N(0, s^2 I) every solver with fixed steps is linear in its noise,
  so that its samples are tau times what they were, exactly. Elsewhere a reverse SDE makes each mode about tau times as
  wide and shifts some weight to those whose codes lie in the middle; a deterministic flow narrows modes by less.
* :class:`TemperedScore` replaces the score by that of N(m, (tau s)^2 I), read off the score of N(m, s^2 I),

  .. math:: \tilde s(x, t) = \frac{\alpha^2 s^2 + \sigma^2}{\alpha^2 \tau^2 s^2 + \sigma^2}\; s_\theta(x, t),

  (arXiv 2510.01184 rescales so.) Exact on a Gaussian under every solver, the noise being what it is without. Where the
  data are separate modes of one width s, each becomes tau times as wide and keeps its weight: a local temperature,
  where p^{1/tau^2} would move nearly all weight to the highest modes. s is the width of what is to be sharpened. The
  data's own std, the default, is right for one mode; for data of several it is far too large, and they shrink too far.

`python -m benchmarks.temperature` measures all of this on a mixture.

What is often written, the score divided by T and everything else unchanged, has neither density: under VE from a wide
prior the reverse SDE's variance is then s^2 T/(2 - T) and the flow's std sigma(T) (s/sigma(T))^{1/T}, which depends on
where the SDE begins. It is not offered.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine, ScoreFn, affine, combinations, of_rows, per_sample, under


class Tempering(ABC):
    """What a temperature does to a sampler's inputs; at temperature 1 nothing, bit for bit."""

    temperature: float

    @property
    def noise(self) -> float:
        """The factor of all normals, the start's included."""
        return 1.0

    @abstractmethod
    def score(self, sde: SDE, score: ScoreFn) -> ScoreFn:
        """The score that the sampler is given in place of another."""

    def randn_like(self, source: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A sampler's source of normals, scaled."""
        return source if self.noise == 1 else lambda x: self.noise * source(x)


def check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature`={temperature} must be positive; type `temperature`=1 for none")


@dataclass(frozen=True)
class TemperedNoise(Tempering):
    """The noise times the temperature; see the module's text.

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
    """The score of data of another width; see the module's text.

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
        """The score's factor, in the shape of t; between 1, where all is noise, and 1/tau^2, where there is none."""
        own, noise = (sde.alpha(t) * self.sigma_data).square(), sde.sigma(t).square()
        return (own + noise) / (self.temperature**2 * own + noise)


class Rescaled:
    """A score times a factor of the time, with the score's own short cuts (:mod:`scoresde.sde_lib.affine`)."""

    def __init__(self, sde: SDE, score: ScoreFn, tempering: TemperedScore):
        self.sde, self.inner, self.tempering = sde, score, tempering
        if hasattr(score, "of_rows"):
            self.of_rows = lambda rows: Rescaled(sde, of_rows(score, rows), tempering)

    def factor(self, t: Tensor) -> Tensor:
        return self.tempering.factor(self.sde, t)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return per_sample(self.factor(t), x).to(x.dtype) * self.inner(x, t)

    def under(self, sde: SDE, other: SDE) -> "Rescaled":
        """The same under another SDE: the factor depends on sigma/alpha alone."""
        return Rescaled(other, under(sde, self.inner, other), self.tempering)

    def affine(self, times: Iterable[float]) -> Affine:
        times = list(times)
        inner, known = affine(self.inner, times), dict(zip(times, self.factors(times), strict=True))

        def evaluate(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
            factor = known[t] if t in known else self.factors([t])[0]
            return inner(x, t, A, C * factor)

        return evaluate

    def factors(self, times: list[float]) -> list[float]:
        return self.factor(torch.tensor(times, dtype=torch.float64)).tolist()

    def combinations(self, t: Tensor, A: Tensor, C: Tensor, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        return combinations(self.inner, t, A, C * self.factor(t), dtype)
