"""A sampler for a budget of network evaluations, a compromise between three measures.

=============  ==========================================================================================
evaluations    sampler
=============  ==========================================================================================
below 16       Adams-Bashforth of order 3 on the velocity
16 to 199      UniPC of order 3
from 200 on    SEA on the reverse SDE, of weak order 2 at one evaluation a step
=============  ==========================================================================================

Each runs on the grid of its own yaml, for one step less than the budget: one evaluation is kept for the last step, and
is not spent with ``last=none``. Which sampler is best depends on the measure. The numbers in brackets are those of
sub-VP, the others of VE and VP.

* By the root mean square of the samples' distances to the flow's exact ends, to which the few samples between two modes
  contribute most, Adams-Bashforth is ahead on a mixture up to 40 evaluations (80), UniPC from 64 on (120).
* By the median of these distances Adams-Bashforth is ahead up to 20 evaluations, UniPC from 32 on (64). On a network
  trained on digits UniPC has two thirds of the other's distance at 20 evaluations and a fifth at 50.
* By the std of a narrow component (0.03 in model units) UniPC is nearer than Adams-Bashforth: at 20 evaluations 2 % off
  (6 %) against 10 % (13 %), at 40 up to 0.2 % against 2 % (3 %). At 10 evaluations it is 10 % off (63 %), and
  Adams-Bashforth 31 to 40 %. Up to 20 evaluations DEIS of order 3 is nearer than both (``sampler=deis``): 7 % at most
  at 10, and 2 % at 16 and 20.
* From 200 evaluations on, the error of solving the flow is below the network's error, of which only a sampler with
  noise removes a part (cf. arXiv 2306.14878).

``sampler=ode`` is nearer to the flow's ends than all of these from 50 evaluations on, but takes a tolerance and no
budget. The distances on mixtures are measured by ``python run.py task=work_precision data=mixture model=oracle``, the
stds by the exact law of the samples of a Gaussian (``ends_of`` of tests/test_samplers.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn

from .adams_bashforth import AdamsBashforth
from .additive import SEA
from .grid import Centred, Karras
from .last import Last, check_last
from .pc import Film, OnStep, PredictorCorrector, Sampler
from .unipc import UniPC


@dataclass(frozen=True)
class Auto(Sampler):
    """A sampler chosen by the budget of evaluations; see the module's table.

    Arguments:
        nfe: the budget of evaluations of the score, a sample; a guided score takes two evaluations of its network.
        sigma_data: the std of the data in model units, which SEA uses; ``auto`` in the yaml takes the data's.
        last: the step from eps to the data, ``flow``, ``tweedie`` or ``none``; see :mod:`scoresde.samplers.last`.
    """

    nfe: int = 50
    sigma_data: float = 1.0
    last: Last = "flow"

    def __post_init__(self):
        check_last(self.last)
        if self.nfe < 3:
            raise ValueError(f"`nfe`={self.nfe} must be at least 3; type for example `nfe`=50")
        if not 0 <= self.sigma_data < math.inf:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be at least 0 and finite; type `sigma_data`=auto")

    @property
    def choice(self) -> PredictorCorrector:
        """The sampler for the budget."""
        steps = self.nfe - 1
        if self.nfe < 16:
            return PredictorCorrector(Centred(0.7), steps, AdamsBashforth(order=3), last=self.last)
        if self.nfe < 200:
            return PredictorCorrector(Centred(4.0), steps, UniPC(order=3), last=self.last)
        return PredictorCorrector(Karras(), steps, SEA(sigma_data=self.sigma_data), last=self.last)

    @property
    def title(self) -> str:
        """The choice in words, for the log."""
        chosen = self.choice
        return f"sampler=auto nfe={self.nfe}: {chosen.steps} steps of {chosen.predictor} on {chosen.grid}"

    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        return self.choice(sde, score, x, randn_like, on_step, film)
