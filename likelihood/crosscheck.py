"""The interface of estimates of log p that use no ODE and are compared with the ODE's, by ``task/crosscheck``;
:mod:`scoresde.likelihood.immse` and :mod:`scoresde.likelihood.energy` implement it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn


@dataclass(frozen=True)
class Estimate:
    """The estimate of log p at each point.

    Attributes:
        model_log_prob: log p(x) of the density in model units, in nats, shape (B,), float64 (float32 if it is on
            mps).
        stderr: its standard error in nats, shape (B,).
        nfe: network evaluations a point.
        shared: whether all points share one error, which a mean over points does not reduce.
    """

    model_log_prob: Tensor
    stderr: Tensor
    nfe: float
    shared: bool = False


class CrossCheck(ABC):
    """(sde, score, x) -> Estimate.

    Attributes:
        start: the density that is estimated, ``corrected`` or ``plain``; see the subclasses.
        apart: whether points may have different conditions y, hence different scores and normalisers; tasks refuse them
            where it is False.
        same: values by key, such as ``{"start": "corrected"}``. :class:`scoresde.tasks.LikelihoodTask` refuses a
            likelihood or a cross-check whose ``start`` or ``prior`` has another value, and unequal values of one not
            listed here.
    """

    start: str
    apart: ClassVar[bool] = True
    same: ClassVar[dict[str, str]]

    @abstractmethod
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> Estimate:
        """Returns the log-density at x, shape (B, *), in model units; calls ``on_step`` with the share done."""
