"""The sampler that was measured to be best for a budget of network evaluations.

=============  ==========================================================================================
evaluations    sampler
=============  ==========================================================================================
below 16       Adams-Bashforth of order 3 on the velocity
16 to 199      UniPC of order 3
from 200 on    SEA on the reverse SDE, of weak order 2 at one evaluation a step
=============  ==========================================================================================

Each runs on the grid of its own yaml, for one step less than the budget: one evaluation is kept for the last step.
Which sampler is best depends on the measure.

* By the root mean square of the samples' distances to the flow's exact ends, to which the few samples between two modes
  contribute most, Adams-Bashforth is ahead on a mixture up to 40 evaluations (sub-VP: 80), UniPC from 64 on (120).
* By their median Adams-Bashforth is ahead up to 20, UniPC from 32 on (sub-VP: 64). On a network trained on digits UniPC
  has two thirds of the other's error at 20 evaluations and a fifth at 50.
* By the std of a narrow component (0.03 in model units) UniPC is the better of the two from 16 on: at 20 evaluations it
  is 2 % off under VE and VP (sub-VP: 6 %), at 40 up to 0.2 %; Adams-Bashforth 10 % and 2 % (13 % and 3 %). At 10
  evaluations neither is good: Adams-Bashforth is 31 to 40 % off, and DEIS of order 3 (``sampler=deis sampler.steps=9``)
  up to 7 %.
* From 200 evaluations on the flow's error is below the network's, of which noise removes a part (cf. arXiv
  2306.14878).

The distances on mixtures are measured by ``python run.py task=work_precision data=mixture model=oracle``, the stds by
the exact law of the samples of a Gaussian (tests/test_samplers.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

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
        nfe: the budget of network evaluations a sample.
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
        randn_like: Callable[[Tensor], Tensor],
        on_step: OnStep | None = None,
        film: Film | None = None,
    ) -> Tensor:
        return self.choice(sde, score, x, randn_like, on_step, film)
