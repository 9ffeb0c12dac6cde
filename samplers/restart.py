r"""Restart (arXiv 2306.14878): steps of the ODE, and at some levels rounds back up with fresh noise and down again.

A deterministic step makes small errors, which all remain in the sample; noise removes errors, but a stochastic step
makes larger ones. So Heun steps go down the grid, and when kappa = sigma/alpha has reached kappa_min, K rounds follow:

.. math:: x \leftarrow a\,x + S_{noise}\,b\,z \quad (\kappa_s \to \kappa_{max}), \qquad
    \text{then } M \text{ Heun steps back to } \kappa_s,

where s is the first time of the grid with kappa_s <= kappa_min, (a, b) is the SDE's own transition from s up to the
time at which kappa is kappa_max, and the steps back are spaced by EDM's rho (arXiv 2206.00364, eq. 5). Each round
removes a part of the sample's error at s. With the exact flow and S_noise = 1 a round leaves the law p_s as it is.

M is by default the number of steps that the grid itself takes between the two levels, so that the whole error falls
with the grid's N. A fixed M, as published, keeps the error of its K M steps however large N is (measured with M = 4
between 0.06 and 0.3 on a Gaussian of std 0.05: 1.7 % of the std at N = 200 and at N = 400).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine

from .heun import Descent, check_noise, descend, descents, noise_ratio
from .step import Step

Round = tuple[int, float, float, list[Descent]]
"""The rounds of one interval: (K, a, S_noise b, the steps of a round back down)."""


@dataclass(frozen=True)
class Restart(Step):
    """Heun steps with restarts.

    Arguments:
        intervals: (kappa_min, kappa_max, K rounds, M steps of each) for every interval, in levels of sigma/alpha; an M
            of None for the grid's own number of steps. The published code counts the M + 1 points of a round, and we
            count its steps.
        rho: the spacing of the steps of a round; see :class:`scoresde.samplers.Karras`.
        noise: S_noise, a factor on the std b of the fresh noise. Published: 1.003.
    """

    intervals: tuple[tuple[float, float, int, int | None], ...] = ((0.06, 0.3, 2, None),)
    rho: float = 7.0
    noise: float = 1.0

    def __post_init__(self):
        for low, high, rounds, steps in self.intervals:
            if not (0 < low < high and rounds >= 1 and (steps is None or steps >= 1)):
                raise ValueError(
                    f"`intervals`: {[low, high, rounds, steps]} must be 0 < kappa_min < kappa_max, at "
                    f"least one round and at least one step; type `intervals`=[[0.06,0.3,2,null]]"
                )
        if not self.rho > 0:
            raise ValueError(f"`rho`={self.rho} must be positive; type `rho`=7")
        check_noise(self.noise)

    def rounds(self, sde: SDE, grid: Tensor) -> list[tuple[int, int, Tensor]]:
        """Returns (step, K, times) for every interval: the index of the step after which its rounds are taken, the
        number of rounds, and the M + 1 times of a round from kappa_max down to s.

        Raises:
            ValueError: an interval is not within the levels of the grid.
        """
        planned, kappa = [], noise_ratio(sde, grid)
        for low, high, count, steps in self.intervals:
            if not (kappa[-1] <= low * (1 + 1e-9) and high <= kappa[0]):
                raise ValueError(
                    f"sampler.predictor.intervals: from {low} to {high} is not within the sampler's way, on which "
                    f"sigma/alpha falls from {float(kappa[0]):.4g} to {float(kappa[-1]):.4g}"
                )
            end = max(1, int((kappa <= low * (1 + 1e-9)).nonzero()[0]))
            if steps is None:
                steps = 1 + int(((kappa < high) & (kappa > kappa[end])).sum())
            unit = torch.linspace(0, 1, steps + 1, dtype=grid.dtype)
            top, bottom = high ** (1 / self.rho), kappa[end] ** (1 / self.rho)
            times = sde.time(-self.rho * torch.log(top + (bottom - top) * unit))
            times[-1] = grid[end]  # exactly, in spite of the rounding of the inverse
            planned.append((end - 1, count, times))
        return planned

    def prepare(self, sde: SDE, grid: Tensor) -> list[tuple[Descent, list[Round]]]:
        """Returns (descent, rounds after it) for each step."""
        rows = [(down, []) for down in descents(sde, grid[:-1], grid[1:])]
        for step, count, times in self.rounds(sde, grid):
            a, b = sde.transition(times[-1], times[0])
            rows[step][1].append((count, float(a), self.noise * float(b), descents(sde, times[:-1], times[1:])))
        return rows

    def times(self, sde: SDE, grid: Tensor) -> list[float]:
        return grid.tolist() + [t for _, _, times in self.rounds(sde, grid) for t in times.tolist()]

    def draws(self, row: tuple[Descent, list[Round]]) -> int:
        return sum(count for count, *_ in row[1])

    def __call__(
        self, row: tuple[Descent, list[Round]], score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        """The noise comes before the evaluations and none after them, so that mean is x_s itself."""
        down, rounds = row
        x, fresh = descend(down, score, x), iter(z)
        for count, a, b, back in rounds:
            for _ in range(count):
                x = torch.add(x * a, next(fresh), alpha=b)
                for descent in back:
                    x = descend(descent, score, x)
        return x, x, None
