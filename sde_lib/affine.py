r"""Linear combinations of x and the score at a given time, the form in which most solvers evaluate the score.

.. math:: A\,x + C\,s_\theta(x, t)

A and C are numbers that do not depend on x. A score of the form c_skip x + c_out F(c_in x)
(:class:`scoresde.models.ScoreModel`) folds its own coefficients into them, computed for all times at once: an
evaluation then costs the network and at most three operations on x. :func:`affine` is for solvers with one time for the
whole batch, :func:`combinations` for those with a time for each sample.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .base import ScoreFn, per_sample

Affine = Callable[..., Tensor]
"""affine(x, t, A=0, C=1) = A x + C score(x, t): x (B, *), and t, A, C plain numbers, the same for every sample."""


def affine(score: ScoreFn, times: Iterable[float]) -> Affine:
    """Returns the function (x, t, A, C) -> A x + C score(x, t), prepared for the given times.

    Arguments:
        score: any callable (x, t) -> score; its method ``affine(times)``, if it has one, is used.
        times: the times at which the function will be called; others are allowed, but a ScoreModel then computes their
            coefficients one by one.
    """
    own = getattr(score, "affine", None)
    if own is not None:
        return own(times)

    def evaluate(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
        value = score(x, expand_to_batch(t, x))
        if A:
            return torch.add(x * A, value, alpha=C)
        return value if C == 1 else value * C

    return evaluate


def combinations(
    score: ScoreFn, t: Tensor, A: Tensor, C: Tensor, dtype: torch.dtype
) -> list[Callable[[Tensor], Tensor]]:
    """Returns m functions x -> A_i x + C_i score(x, t_i), whose A_i, C_i and t_i are numbers for each sample, (B,).

    Arguments:
        score: any callable (x, t) -> score; its method ``combinations(t, A, C, dtype)``, if it has one, is used.
        t, A, C: shape (m, B), float64 (float32 on mps).
        dtype: the dtype of x (B, *).
    """
    own = getattr(score, "combinations", None)
    if own is not None:
        return own(t, A, C, dtype)

    def combination(t: Tensor, A: Tensor, C: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.addcmul(per_sample(A, x) * x, per_sample(C, x), score(x, t))

    return [combination(*row) for row in zip(t, A.to(dtype), C.to(dtype), strict=True)]


def expand_to_batch(t: float, x: Tensor) -> Tensor:
    """Returns the number t, such as a time, for every sample of x, shape (B,): one number in memory, expanded."""
    return torch.full((1,), t, dtype=x.dtype, device=x.device).expand(len(x))
