"""A second value of log p, of the same points and without an ODE, to compare the ODE's with."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn


@dataclass(frozen=True)
class Estimate:
    """What is known about each point.

    Attributes:
        log_prob: log p(x) in nats and model units, shape (B,), float64.
        stderr: its standard error in nats, shape (B,).
        nfe: network evaluations a point.
        shared: whether all points have one and the same error, which no mean over them makes smaller.
    """

    log_prob: Tensor
    stderr: Tensor
    nfe: float
    shared: bool = False


class CrossCheck(ABC):
    """(sde, score, x) -> Estimate.

    ``same`` says which keys of the likelihood must have which values for both to be of one density, ``apart`` whether
    points whose scores differ, each given its own y, can be checked at once.
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
        """The log-density at x, shape (B, *), in model units; ``on_step`` is told the share of the way done."""
