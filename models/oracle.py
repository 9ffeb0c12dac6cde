r"""The exact score of a mixture of isotropic Gaussians under any linear SDE.

.. math::
    p_0 = \sum_k w_k N(\mu_k, s_k^2 I) \quad\Rightarrow\quad
    p_t = \sum_k w_k N(\alpha\mu_k,\ v_k I), \qquad v_k = \alpha^2 s_k^2 + \sigma^2,

    \nabla_x\log p_t(x) = \sum_k r_k(x)\,\frac{\alpha\mu_k - x}{v_k}, \qquad
    r_k = \mathrm{softmax}_k\bigl[\log w_k + \log N(x; \alpha\mu_k, v_k I)\bigr].

With it the error of a solver and the error of a model can be told apart: every sampler and every likelihood is
tested on it.
"""

import math
from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoresde.sde_lib import SDE, of_rows


class Oracle(nn.Module):
    """score(x, t) of the mixture's marginal at t; it has no parameters.

    Arguments:
        sde: the forward SDE.
        components: weights (K,), means (K, D) and stds (K,) of the mixture in model units; ``auto`` in the yaml
            takes the data's.
        evidence: of data of p(x | y), log p(y | k) up to a constant, y (B, width) to (B, K); ``auto`` takes the data's.

    Attributes:
        exact: it is a score as it is, and is not trained.
    """

    exact: ClassVar[bool] = True

    def __init__(self, sde: SDE, components: tuple[Tensor, Tensor, Tensor], evidence: Any = None):
        super().__init__()
        self.sde, self.evidence = sde, evidence
        weights, means, stds = (torch.as_tensor(c, dtype=torch.float64) for c in components)
        if not (weights.shape == stds.shape and means.ndim == 2 and len(means) == len(weights)):
            raise ValueError(
                f"the oracle takes weights (K,), means (K, D), stds (K,); it got {[tuple(c.shape) for c in components]}"
            )
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("means", means)
        self.register_buffer("variances", stds.square())

    def _terms(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(w_k N(x; alpha mu_k, v_k I)) (B, K), v_k (B, K), and alpha (B, 1)."""
        alpha, sigma = self.sde.alpha(t)[:, None].to(x.dtype), self.sde.sigma(t)[:, None].to(x.dtype)
        variances = alpha.square() * self.variances + sigma.square()
        means = alpha[..., None] * self.means  # (B, K, D): the differences and not the squares, which would cancel
        distances = (x.flatten(1)[:, None] - means).square().sum(-1)
        dim = self.means.shape[1]
        return (
            self.log_weights - 0.5 * (distances / variances + dim * (variances.log() + math.log(2 * math.pi))),
            variances,
            alpha,
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The score at x (B, *) and t (B,), of x's shape."""
        terms, variances, alpha = self._terms(x, t)
        pull = torch.softmax(terms, dim=1) / variances  # r_k / v_k
        return (alpha * (pull @ self.means) - pull.sum(1, keepdim=True) * x.flatten(1)).reshape(x.shape)

    def given(self, y: Tensor | None, guidance: float = 1.0) -> "Oracle | Line":
        """The exact score of p(x | y), whose components are those of p(x) with the weights p(k | y); None for p(x).

        Arguments:
            y: (B, width), or (1, width) for one that all samples share, as :class:`scoresde.data.Condition` encodes it.
            guidance: see :mod:`scoresde.models.given`; of scores that are exact.
        """
        if y is None or guidance == 0:
            return self
        told = copy(self)
        told._buffers = dict(self._buffers)
        told.log_weights = (self.log_weights + self.evidence(y.to(self.log_weights))).log_softmax(1)
        return told if guidance == 1 else Line(self, told, guidance)

    @property
    def of_rows(self) -> Callable[[Tensor], "Oracle"]:
        """of_rows(rows), where each sample has a y of its own; see :mod:`scoresde.sde_lib.rows`."""
        if self.log_weights.ndim == 1 or len(self.log_weights) == 1:
            raise AttributeError("one score for all rows")

        def some(rows: Tensor) -> "Oracle":
            twin = copy(self)
            twin._buffers = dict(self._buffers)
            twin.log_weights = self.log_weights[rows]
            return twin

        return some

    def classifier(self) -> "ExactClassifier":
        """p(k | x, t) of the components."""
        return ExactClassifier(self)

    def under(self, sde: SDE, other: SDE) -> "Oracle":
        """The same mixture's score under another SDE."""
        twin = copy(self)
        twin.sde = other
        return twin

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) in nats and model units, shape (B, *) and (B,) to (B,)."""
        return torch.logsumexp(self._terms(x, t)[0], dim=1)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """:meth:`log_prob` by the name that an energy network's unnormalised one has."""
        return self.log_prob(x, t)


class Line(nn.Module):
    """s + w (s_y - s) of two exact scores: classifier-free guidance; see :mod:`scoresde.models.given`."""

    cost = 2

    def __init__(self, plain: Oracle, told: Oracle, guidance: float):
        super().__init__()
        self.plain, self.told, self.guidance = plain, told, guidance

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(self.plain(x, t), self.told(x, t), self.guidance)

    def of_rows(self, rows: Tensor) -> "Line":
        """The same for some rows of the batch; see :mod:`scoresde.sde_lib.rows`."""
        return Line(self.plain, of_rows(self.told, rows), self.guidance)

    def under(self, sde: SDE, other: SDE) -> "Line":
        """The same under another SDE."""
        return Line(self.plain.under(sde, other), self.told.under(sde, other), self.guidance)


class ExactClassifier(nn.Module):
    r"""log p(k | x, t) of a mixture's components, log r_k of the module's text; and of any y that they are told by,

    .. math:: \log p_t(y \mid x) = \log\sum_k r_k(x)\, p(y \mid k) .
    """

    def __init__(self, oracle: Oracle):
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Shape (B, *) and (B,) to (B, K), nats."""
        return self.oracle._terms(x, t)[0].log_softmax(1)

    def given(self, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """log p(y | x, t) up to a constant, (B, *) and (B,) to (B,), for y (1 or B, width)."""
        told = self.oracle.evidence(y.to(self.oracle.log_weights))
        return lambda x, t: torch.logsumexp(self(x, t) + told.to(x), dim=1)

    def under(self, sde: SDE, other: SDE) -> "ExactClassifier":
        """The same under another SDE."""
        return ExactClassifier(self.oracle.under(sde, other))
