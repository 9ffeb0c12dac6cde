r"""The one thing that solvers ask of a score at a known time: x and the score, combined linearly.

.. math:: A\,x + C\,s_\theta(x, t)

Every step of every sampler with one time for the whole batch has this form, with numbers A and C that are known
before the loop. A score that is itself c_skip x + c_out F(x) (:class:`models.ScoreModel`) folds its own coefficients
into them, computed for all times at once: an evaluation then costs the network and two operations.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .base import ScoreFn

Affine = Callable[..., Tensor]
"""affine(x, t, A=0, C=1) = A x + C score(x, t): x (B, *), and t, A, C plain numbers, the same for every sample."""


def affine(score: ScoreFn, times: Iterable[float]) -> Affine:
    """A x + C score(x, t), made ready for the given times (others are allowed, and slower).

    Arguments:
        score: any callable (x, t) -> score; one with a method ``affine(times)`` brings its own.
    """
    own = getattr(score, "affine", None)
    if own is not None:
        return own(times)

    def evaluate(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
        value = score(x, at(t, x))
        if A:
            return torch.add(x * A, value, alpha=C)
        return value if C == 1 else value * C

    return evaluate


def at(t: float, x: Tensor) -> Tensor:
    """The time t for every sample of x, shape (B,): one number in memory, expanded."""
    return torch.full((1,), t, dtype=x.dtype, device=x.device).expand(len(x))
