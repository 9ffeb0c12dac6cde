r"""Replacement: the measured part of x_t is set to :math:`A^+ y` with the noise of t; the score determines the rest.

.. math:: x \leftarrow (I - P)\,x + \alpha\,A^+ y + \sigma\,P z, \qquad P = A^+ A

after every step of a predictor and every step of a corrector (arXiv 2011.13456: inpainting, where P x is the known
pixels, and colourisation, where P x is the grey picture, their "decoupled" coordinate). The formula is for exact y; for
y with noise see :meth:`scoresde.samplers.Measurement.replace`. This code differs from the published one:

* x is replaced at the time s that a step has reached, with that time's alpha and sigma;
* the start at T is replaced too, by values with noise and not by clean ones;
* the replacement is in the row space of A, at the start as well;
* no noise is added after the sampler's last step, and the samples agree with an exact measurement exactly.

Replacement draws the measured part independently of the rest. So its samples do not have quite the posterior's law, at
any step size. Steps back up and down again (RePaint, arXiv 2201.09865: ``rounds``) bring the two parts into agreement,
and so do more steps of a corrector.

A sampler that draws no noise has no fresh z: its measured part keeps the z of the start and follows
:math:`\alpha A^+ y + \sigma P z`. This is the flow of the score

.. math:: (I - P)\,s_\theta + P\,(\alpha A^+ y - x)/\sigma^2,

the score of data that are A^+ y in the row space. Such samplers run on this score, and so do all that are no
:class:`scoresde.samplers.PredictorCorrector`, such as the adaptive SDE, whose samples have their own times.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine, ScoreFn, of_rows, per_sample
from scoresde.sde_lib.frame import under

from .auto import Auto
from .conditioner import Conditioner, Held
from .measurement import Measurement
from .pc import Film, OnStep, PredictorCorrector, Sampler
from .step import Step


class Row(NamedTuple):
    """The row of the step itself, alpha and sigma at s, and (a, b) of the transition x_t | x_s ~ N(a x_s, b^2 I)."""

    inner: Any
    alpha: float
    sigma: float
    a: float
    b: float


@dataclass(frozen=True, eq=False)
class Replaced(Step):
    """A step that is followed by a replacement of the measured part.

    Attributes:
        step: any step.
        measurement, target: the batch's measurement, and its A^+ y, (B, *).
        rounds: the number of times that the step is taken.
        back: True if x goes back up to t between the rounds, for a predictor; a corrector stays at s.
    """

    step: Step
    measurement: Measurement
    target: Tensor
    rounds: int = 1
    back: bool = True

    def prepare(self, sde: SDE, grid: Tensor) -> list[Row]:
        t, s = grid[:-1], grid[1:]
        columns = sde.alpha(s), sde.sigma(s), *sde.transition(s, t)
        return [Row(*row) for row in zip(self.step.prepare(sde, grid), *(c.tolist() for c in columns), strict=True)]

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        return self.step.times(sde, grid)

    def draws(self, row: Row) -> int:
        """Returns the number of tensors of normals: the step's own and one for the measured part in each round, and one
        for each way back up.
        """
        return self.rounds * (self.step.draws(row.inner) + 1) + (self.rounds - 1) * self.back

    def __call__(self, row: Row, score: Affine, x: Tensor, z: list[Tensor], memory: Any) -> tuple[Tensor, Tensor, Any]:
        fresh = iter(z)
        for i in range(self.rounds):
            if i and self.back:
                x = torch.add(x * row.a, next(fresh), alpha=row.b)
            own = [next(fresh) for _ in range(self.step.draws(row.inner))]
            x, mean, memory = self.step(row.inner, score, x, own, memory)
            x = self.measurement.replace(x, self.target, row.alpha, row.sigma, next(fresh))
        mean = self.measurement.replace(mean, self.target, row.alpha, 0.0, torch.zeros_like(mean))
        return x, mean, memory


@dataclass(frozen=True, eq=False)
class Bridge:
    """The score of data that are A^+ y in the row space of A: exact in the row space, the prior's in the null space."""

    sde: SDE
    score: ScoreFn
    measurement: Measurement
    target: Tensor

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the score at x (B, *) and t (B,), of x's shape."""
        value = self.score(x, t)
        alpha, sigma = (per_sample(number.to(x.dtype), x) for number in (self.sde.alpha(t), self.sde.sigma(t)))
        inside = (alpha * self.target - x) / sigma.square()
        return value + self.measurement.operator.function(lambda e: (e > 0).to(e.dtype), inside - value)

    def under(self, sde: SDE, other: SDE) -> "Bridge":
        return replace(self, sde=other, score=under(sde, self.score, other))

    def of_rows(self, rows: Tensor) -> "Bridge":
        return replace(
            self, score=of_rows(self.score, rows), measurement=self.measurement.rows(rows), target=self.target[rows]
        )


@dataclass(frozen=True, eq=False)
class Started(Sampler):
    """A sampler that first replaces the measured part of its start x_T by alpha(T) A^+ y with the noise of T."""

    sampler: Sampler
    measurement: Measurement
    target: Tensor

    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        alpha = float(sde.alpha(torch.tensor(sde.T, dtype=torch.float64)))
        x = self.measurement.replace(x, self.target, alpha, sde.prior_std, x / sde.prior_std)
        return self.sampler(sde, score, x, randn_like, on_step, film)


@dataclass(frozen=True)
class Projection(Conditioner):
    """Replacement, for every sampler if y is exact, else for a predictor-corrector that draws noise.

    See the module's text.

    Arguments:
        rounds: the number of times that each step of a predictor is taken, with a step back up in between; 1 is the
            published inpainting, 10 is RePaint's. Above 1 it needs a predictor-corrector that draws noise.
    """

    rounds: int = 1

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"`rounds`={self.rounds} must be at least 1; type `rounds`=1")

    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        sampler = sampler.choice if isinstance(sampler, Auto) else sampler
        target = measurement.target
        steps = [sampler.predictor, sampler.corrector] if isinstance(sampler, PredictorCorrector) else []
        if any(step is not None and step.normals for step in steps):
            sampler = self.replacing(sampler, measurement, target)
        else:
            self.refuse(sampler, measurement)
            score = Bridge(sde, score, measurement, target)
        return Held(Started(sampler, measurement, target), measurement), score

    def remedy(self, vectors: bool) -> str:
        return "type conditioner=smcdiff"

    def replacing(self, sampler: PredictorCorrector, measurement: Measurement, target: Tensor) -> PredictorCorrector:
        """Returns the sampler with a replacement after every step of its predictor and of its corrector."""
        predictor, corrector = sampler.predictor, sampler.corrector
        if predictor is not None:
            predictor = Replaced(predictor, measurement, target, self.rounds)
        if corrector is not None:  # a replacement follows each of its steps
            count = getattr(corrector, "count", 1)
            single = replace(corrector, count=1) if count > 1 else corrector
            corrector = Replaced(single, measurement, target, count, back=False)
        return replace(sampler, predictor=predictor, corrector=corrector)

    def refuse(self, sampler: Sampler, measurement: Measurement) -> None:
        """Raises a ValueError, where the sampler's steps stay as they are, for y with noise or more than one round."""
        name = type(getattr(sampler, "predictor", None) or sampler).__name__
        if measurement.noise:
            raise ValueError(
                f"conditioner=projection adds no fresh noise at the steps of {name} and so works only with exact "
                f"measurements, and operator.noise is not 0; type conditioner=pigdm, or sampler=pc"
            )
        if self.rounds > 1:
            raise ValueError(
                f"conditioner.rounds={self.rounds}: going back up needs a predictor or corrector with noise, not "
                f"{name}; type sampler=pc, or conditioner.rounds=1"
            )
