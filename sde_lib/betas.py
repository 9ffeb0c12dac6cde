r"""Schedules beta_1 ... beta_T of a discrete chain of T steps.

beta_n is the share of the variance that step n of :class:`scoresde.sde_lib.Chain` replaces by noise, and the
probability with which step n of :class:`scoresde.sde_lib.BinaryChain` tosses a coin for a bit.

==============  ================================================================================================
LinearBetas     from beta_1 to beta_T in equal steps (arXiv 2006.11239, section 4), both scaled by 1000/T
CosineBetas     :math:`\bar\alpha_n = \cos^2(\tfrac{n/T + s}{1 + s}\,\tfrac\pi2)\,/\,\cos^2(\tfrac{s}{1+s}\,\tfrac\pi2)`
                (arXiv 2102.09672, eq. 17), :math:`\beta_n = 1 - \bar\alpha_n/\bar\alpha_{n-1}`
InverseBetas    :math:`\beta_n = 1/(T - n + 1)` (arXiv 1503.03585): :math:`\prod_{m\le n}(1 - \beta_m) = 1 - n/T`
==============  ================================================================================================

The last beta of the latter two would be 1 and leave no signal: both are cut off at ``largest``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Betas(ABC):
    """A schedule: maps the number of steps to beta_1 ... beta_T."""

    @abstractmethod
    def __call__(self, steps: int) -> Tensor:
        """Returns the betas, shape (steps,), float64."""


@dataclass(frozen=True)
class LinearBetas(Betas):
    """beta grows linearly (arXiv 2006.11239, section 4).

    Arguments:
        first, last: the first and the last beta of a chain of 1000 steps; a chain of T steps has 1000/T times as much,
            and so about the same signal at its end.
    """

    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self):
        if not 0 < self.first <= self.last < math.inf:
            raise ValueError(
                f"`first`={self.first} must be positive and at most `last`={self.last}; "
                f"published: `first`=1e-4 `last`=0.02"
            )

    def __call__(self, steps: int) -> Tensor:
        return torch.linspace(self.first, self.last, steps, dtype=torch.float64) * (1000 / steps)


@dataclass(frozen=True)
class CosineBetas(Betas):
    """The signal fades as a squared cosine (arXiv 2102.09672, eq. 17).

    Arguments:
        s: the offset that keeps the first steps from being too small.
        largest: the upper limit of beta.
    """

    s: float = 0.008
    largest: float = 0.999

    def __post_init__(self):
        if not 0 <= self.s < math.inf:
            raise ValueError(f"`s`={self.s} must be at least 0 and finite; published: `s`=0.008")
        check_largest(self.largest)

    def __call__(self, steps: int) -> Tensor:
        share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        angle = (share + self.s) / (1 + self.s) * (math.pi / 2)
        # 1 - (cos b / cos a)^2 = sin(b - a) sin(b + a) / cos(a)^2, without cancellation
        a, b = angle[:-1], angle[1:]
        return (torch.sin(b - a) * torch.sin(b + a) / torch.cos(a).square()).clamp_max(self.largest)


@dataclass(frozen=True)
class InverseBetas(Betas):
    """beta_n = 1/(T - n + 1): the product of 1 - beta_m over m <= n falls linearly in n (arXiv 1503.03585).

    Arguments:
        largest: the upper limit of beta; the last one would be 1.
    """

    largest: float = 0.999

    def __post_init__(self):
        check_largest(self.largest)

    def __call__(self, steps: int) -> Tensor:
        return (1 / torch.arange(steps, 0, -1, dtype=torch.float64)).clamp_max(self.largest)


def check_largest(largest: float) -> None:
    if not 0 < largest <= 1:
        raise ValueError(f"`largest`={largest} must be positive and at most 1; type `largest`=0.999")


def betas_of(schedule: Betas, T: float, most: float) -> Tensor:
    """Returns the betas of a chain of T steps, (T,); ValueError unless T is a whole number of at least 2 and all betas
    lie in (0, most].
    """
    if not (math.isfinite(T) and T >= 2 and T == int(T)):
        raise ValueError(f"`T`={T} must be a whole number of steps, at least 2; published: `T`=1000")
    betas = schedule(int(T))
    outside = ~((betas > 0) & (betas <= most))
    if bool(outside.any()):
        n = int(outside.nonzero()[0])
        raise ValueError(
            f"`T`={T:g}: step {n + 1} of the schedule has beta={float(betas[n]):.3g}, which must be positive and at "
            f"most {most:.6g}; type more steps (`T`=1000), smaller betas, or `schedule.largest`=0.999 where "
            f"the schedule has that key"
        )
    return betas
