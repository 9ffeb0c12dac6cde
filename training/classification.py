r"""Training a classifier of noisy data, or of clean ones.

.. math:: -\log p_\phi(y \mid x_t, t), \qquad x_t = \alpha x_0 + \sigma z

averaged over the levels of noise that a score is learnt at (arXiv 2105.05233): the classifier's gradient is
wanted at all of them. Of clean data, for the features in which samples are compared, -log p(y | x_0) alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from scoresde.sde_lib import SDE, Draws

from .levels import Levels, LogSNR
from .loss import Loss, given


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """(sde, log_prob, x_0, draws) -> -log p(y | x_t, t) in nats, one a sample, of a classifier whose y is given.

    Arguments:
        levels, stratified: as in :class:`scoresde.training.DenoisingScoreMatching`.
    """

    levels: Levels = field(default_factory=LogSNR)
    stratified: bool = True

    def __call__(
        self, sde: SDE, score: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, draws: Draws | None = None
    ) -> Tensor:
        draws = given(draws, x_0)
        t = self.levels.times(sde, draws.spread("times", x_0, self.stratified))
        return -score(sde.perturb(x_0, t, draws.normal("noise", x_0)), t)


@dataclass(frozen=True)
class Recognition(Loss):
    """(no SDE, log_prob, x_0, draws) -> -log p(y | x_0) in nats, one an example, of a classifier whose y is given."""

    def __call__(
        self, sde: SDE | None, score: Callable[[Tensor], Tensor], x_0: Tensor, draws: Draws | None = None
    ) -> Tensor:
        return -score(x_0)
