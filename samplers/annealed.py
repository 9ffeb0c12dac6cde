r"""Annealed Langevin dynamics: Langevin steps at every level of a ladder of noise levels.

.. math::
    x \leftarrow x + \varepsilon_i\,s_\theta(x, t_i) + \sqrt{2\varepsilon_i}\,z, \qquad
    \varepsilon_i = \varepsilon\,k_i^2/k_L^2

(Song and Ermon, arXiv 1907.05600, algorithm 1, and arXiv 2006.09011, algorithm 1, whose epsilon is the one here; the
first paper's is twice as large). k_i = sigma/alpha at t_i, and the L levels t_1 = T > ... > t_L = eps have the same
ratio gamma = k_{i-1}/k_i between neighbours. In these formulas x stands for x/alpha and s for its score, so that the
walk is the same under every SDE. The ratio of signal to noise of a step is the same at every level (section 4.3 of the
first paper). For data at one point the walk at level i starts with the variance k_{i-1}^2 of the level before, and
after ``count`` steps it has the variance v with

.. math::
    v/k_i^2 = (1 - r)^{2\,count}\bigl(\gamma^2 - \tfrac{2}{2 - r}\bigr) + \tfrac{2}{2 - r}, \qquad
    r = \varepsilon/k_L^2,

which should be 1: ``size=None`` takes the r that brings it nearest to 1 (arXiv 2006.09011, technique 4). The code works
in x and not in x/alpha, where the step size is r sigma(t_i)^2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, affine

from .grid import LogSNR
from .last import Last, check_last, finish
from .pc import Film, OnStep, Sampler


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """``count`` Langevin steps at each of ``levels`` noise levels.

    Arguments:
        levels: the number L of noise levels.
        count: the number of steps at each level.
        size: the relative step r = epsilon_i/k_i^2, the same at every level; None for the published rule. Published:
            0.1 for 10 levels of 100 steps, 0.062 for 232 levels of 5.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.
    """

    levels: int = 10
    count: int = 100
    size: float | None = None
    last: Last = "none"

    def __post_init__(self):
        check_last(self.last)
        if self.levels < 2:
            raise ValueError(f"`levels`={self.levels} must be at least 2; published: `levels`=10")
        if self.count < 1:
            raise ValueError(f"`count`={self.count} must be at least 1; published: `count`=100")
        if self.size is not None and not 0 < self.size < 1:
            raise ValueError(
                f"`size`={self.size} must lie between 0 and 1, or be null for the published rule; published: `size`=0.1"
            )

    @property
    def frames(self) -> int:
        """The number of frames that a film of this sampler should have: the start and the end of every level, or 11 for
        more than 40 levels; ``task=sample`` reads it.
        """
        return self.levels + 1 if self.levels <= 40 else 11

    def ladder(self, sde: SDE) -> tuple[list[float], list[float]]:
        """Returns the times of the L levels, falling from T to eps, and their step sizes r sigma(t)^2 in x."""
        t = LogSNR()(sde, self.levels - 1)
        k, alpha = torch.exp(-sde.half_log_snr(t)), sde.alpha(t)
        r = self.size if self.size is not None else self.relative_size(float(k[0] / k[-1]))
        return t.tolist(), (r * (alpha * k).square()).tolist()

    def relative_size(self, ratio: float) -> float:
        """Returns the published r of the module's text, for levels with k_1/k_L = ``ratio``."""
        from scipy.optimize import minimize_scalar  # here, because the import takes a second

        gamma2 = ratio ** (2 / (self.levels - 1))

        def excess(r: float) -> float:
            """Returns |v/k_i^2 - 1|."""
            limit = 2 / (2 - r)
            return abs((1 - r) ** (2 * self.count) * (gamma2 - limit) + limit - 1)

        return float(minimize_scalar(excess, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9}).x)

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        times, steps = self.ladder(sde)
        evaluate = affine(score, times)
        alphas = sde.alpha(torch.tensor(times, dtype=torch.float64)).tolist()
        frames = [round(share * self.levels) for share in film.shares] if film else []  # numbers of finished levels
        if film:
            film.add(sde.T, x)
        for i, (t, step) in enumerate(zip(times, steps, strict=True)):
            if i:  # keeps x/alpha between levels
                x = x * (alphas[i] / alphas[i - 1])
            for n in range(self.count):
                x = torch.add(evaluate(x, t, 1.0, step), randn_like(x), alpha=math.sqrt(2 * step))
                if on_step:
                    on_step((i * self.count + n + 1) / (self.levels * self.count))
            for _ in range(frames.count(i + 1)):  # a film of more frames than levels shows a level more than once
                film.add(t, x)
        return finish(self.last, sde, score, x)
