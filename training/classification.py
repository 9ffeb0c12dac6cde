r"""The losses of classifiers of noisy data and of clean data.

A classifier that guides a sampler is trained by

.. math:: -\log p_\phi(y \mid x_t, t), \qquad x_t = \alpha x_0 + \sigma z

averaged over noise levels from T down to eps, since the sampler needs its gradient at all of them (arXiv 2105.05233). A
classifier whose features compare samples is trained on clean data, by -log p(y | x_0).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from scoresde.sde_lib import SDE, Draws

from .levels import Levels, LogSNR
from .loss import Loss, draws_or_fresh


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """The cross-entropy -log p(y | x_t, t) of each sample in nats.

    In a call ``score`` is no score but the function log p(y | x, t) of the samples' y, (B, *) and (B,) to (B,).

    Arguments:
        levels, stratified: as in :class:`scoresde.training.DenoisingScoreMatching`.
    """

    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True

    def __call__(
        self, sde: SDE, score: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, draws: Draws | None = None
    ) -> Tensor:
        draws = draws_or_fresh(draws, x_0)
        t = self.levels.times(sde, draws.spread("times", x_0, self.stratified))
        return -score(sde.perturb(x_0, t, draws.normal("noise", x_0)), t)


@dataclass(frozen=True)
class Recognition(Loss):
    """The cross-entropy -log p(y | x_0) of each example in nats.

    In a call ``score`` is no score but the function log p(y | x) of the examples' y, (B, *) to (B,); ``sde`` and
    ``draws`` are not used.
    """

    def __call__(
        self, sde: SDE | None, score: Callable[[Tensor], Tensor], x_0: Tensor, draws: Draws | None = None
    ) -> Tensor:
        return -score(x_0)
