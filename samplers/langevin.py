r"""Plain Langevin dynamics at one noise level: a random walk whose law tends to p_t.

.. math:: x \leftarrow x + \varepsilon\,s_\theta(x, t) + \sqrt{2\varepsilon}\,z

(Song and Ermon, arXiv 1907.05600, eq. 4, whose epsilon is twice the one here). For small epsilon and many steps x has
the law p_t. The number of steps may be out of reach: modes that are far apart keep the shares of samples that the start
gave them (section 3.2.2 there), which is why annealed Langevin dynamics lowers the noise in steps. The bias of a finite
step is known in closed form for p_t of variance v: the walk's variance is v/(1 - epsilon/(2 v)).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, affine

from .pc import Film, OnStep, Sampler


@dataclass(frozen=True)
class LangevinDynamics(Sampler):
    """``steps`` Langevin steps at one time, from draws of a Gaussian.

    Samples are returned as x/alpha, with the noise of the level: there is no last step to the data.

    Arguments:
        steps: the number of steps.
        size: epsilon, in the square of model units. On p_t of variance v the walk diverges from epsilon = 2 v on.
        noise_to_signal: sigma/alpha of the level to walk at; None for eps.
        start: the std of the Gaussian to start from, in model units; None for the SDE's prior.

    Attributes:
        one_level: True: the walk stays at one noise level.
    """

    one_level: ClassVar[bool] = True

    steps: int = 1000
    size: float = 1e-3
    noise_to_signal: float | None = None
    start: float | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"`steps`={self.steps} must be at least 1; type `steps`=1000")
        if not 0 < self.size < math.inf:
            raise ValueError(f"`size`={self.size} must be positive and finite; type `size`=1e-3")
        for key in ("noise_to_signal", "start"):
            if (value := getattr(self, key)) is not None and not 0 < value < math.inf:
                raise ValueError(f"`{key}`={value} must be positive and finite, or null")

    def time(self, sde: SDE) -> float:
        """Returns the time t of the noise level; raises a ValueError if the SDE does not reach this level."""
        if self.noise_to_signal is None:
            return sde.eps
        return sde.time_of(self.noise_to_signal, "sampler.noise_to_signal")

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
        t = self.time(sde)
        evaluate, noise = affine(score, [t]), math.sqrt(2 * self.size)
        if self.start is not None:
            x = x * (self.start / sde.prior_std)
        frames = {round(share * self.steps) for share in film.shares} if film else set()
        if film:
            film.add(t, x)
        for n in range(self.steps):
            x = torch.add(evaluate(x, t, 1.0, self.size), randn_like(x), alpha=noise)
            if n + 1 in frames:
                film.add(t, x)
            if on_step:
                on_step((n + 1) / self.steps)
        return x / float(sde.alpha(torch.tensor(t, dtype=torch.float64)))
