r"""The exact score of a mixture of isotropic Gaussians under any linear SDE.

.. math::
    p_0 = \sum_k w_k N(\mu_k, s_k^2 I) \quad\Rightarrow\quad
    p_t = \sum_k w_k N(\alpha\mu_k,\ v_k I), \qquad v_k = \alpha^2 s_k^2 + \sigma^2,

    \nabla_x\log p_t(x) = \sum_k r_k(x)\,\frac{\alpha\mu_k - x}{v_k}, \qquad
    r_k = \mathrm{softmax}_k\bigl[\log w_k + \log N(x; \alpha\mu_k, v_k I)\bigr].

The exact score separates the error of a solver from the error of a model: samplers and likelihoods of continuous data
are tested on it.
"""

import math
from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoresde.sde_lib import SDE, of_rows
from scoresde.sde_lib.base import times_of
from scoresde.sde_lib.products import row_product


class Oracle(nn.Module):
    """The score(x, t) of the mixture's marginal at t; it has no parameters.

    Arguments:
        sde: the forward SDE.
        components: weights (K,), means (K, D) and stds (K,) of the mixture in model units; ``auto`` in the yaml
            takes the data's.
        evidence: for data with a condition y, the function log p(y | k) up to a constant, y (B, width) to (B, K);
            ``auto`` in the yaml takes the data's. None for a score of p(x) only.

    Attributes:
        exact: True, since the score is exact and is not trained.
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

    def _terms(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log(w_k N(x; alpha mu_k, v_k I)) (B, K), v_k (B, K), and alpha (B, 1), for x (B, *) and t (B,)."""
        t = times_of(t, x)
        alpha, sigma = self.sde.alpha(t)[:, None].to(x.dtype), self.sde.sigma(t)[:, None].to(x.dtype)
        variances = alpha.square() * self.variances + sigma.square()
        means = alpha[..., None] * self.means  # (B, K, D); differences first, since expanded squares would cancel
        distances = (x.flatten(1)[:, None] - means).square().sum(-1)
        dim = self.means.shape[1]
        return (
            self.log_weights - 0.5 * (distances / variances + dim * (variances.log() + math.log(2 * math.pi))),
            variances,
            alpha,
        )

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns the score at x (B, *) and t (B,), in the shape of x."""
        terms, variances, alpha = self._terms(x, t)
        pull = torch.softmax(terms, dim=1) / variances  # r_k / v_k
        return (alpha * row_product(pull, self.means.T) - pull.sum(1, keepdim=True) * x.flatten(1)).reshape(x.shape)

    def given(self, y: Tensor | None, guidance: float = 1.0) -> "Oracle | Line":
        """Returns the exact score of p(x | y), whose components have the weights p(k | y), or the guided score.

        Arguments:
            y: (B, width), or (1, width) for one y of all samples, as :class:`scoresde.data.Condition` encodes it; None
                for p(x).
            guidance: the guidance scale w of :mod:`scoresde.models.given`, applied to the exact scores.
        """
        if y is None or guidance == 0:
            return self
        conditional = copy(self)
        conditional._buffers = dict(self._buffers)  # copy() shares the dictionary, and log_weights is one of its values
        conditional.log_weights = (self.log_weights + self.evidence(y.to(self.log_weights))).log_softmax(1)
        return conditional if guidance == 1 else Line(self, conditional, guidance)

    @property
    def of_rows(self) -> Callable[[Tensor], "Oracle"]:
        """The function of_rows(rows), if each sample has its own y; see :mod:`scoresde.sde_lib.rows`."""
        if self.log_weights.ndim == 1 or len(self.log_weights) == 1:  # (K,) without y, (1, K) with one y
            raise AttributeError("one score for all rows")

        def pick(rows: Tensor) -> "Oracle":
            twin = copy(self)
            twin._buffers = dict(self._buffers)
            twin.log_weights = self.log_weights[rows]
            return twin

        return pick

    def classifier(self) -> "ExactClassifier":
        """Returns the exact classifier log p(k | x, t) of the components, by which a conditional score is guided."""
        return ExactClassifier(self)

    def under(self, sde: SDE, other: SDE) -> "Oracle":
        """Returns the same mixture's score under the SDE ``other``; see :func:`scoresde.sde_lib.under`."""
        twin = copy(self)
        twin.sde = other
        return twin

    def log_prob(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns log p_t(x) in nats and model units, (B, *) and (B,) to (B,)."""
        return torch.logsumexp(self._terms(x, t)[0], dim=1)

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns :meth:`log_prob`, by the name that the unnormalised log-density of an energy network has."""
        return self.log_prob(x, t)


class Line(nn.Module):
    """Classifier-free guidance s + w (s_y - s) with two exact scores; see :mod:`scoresde.models.given`."""

    cost = 2

    def __init__(self, without_y: Oracle, with_y: Oracle, guidance: float):
        super().__init__()
        self.without_y, self.with_y, self.guidance = without_y, with_y, guidance

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        return torch.lerp(self.without_y(x, t), self.with_y(x, t), self.guidance)

    def of_rows(self, rows: Tensor) -> "Line":
        """Returns the score for some rows of the batch; see :mod:`scoresde.sde_lib.rows`."""
        return Line(self.without_y, of_rows(self.with_y, rows), self.guidance)

    def under(self, sde: SDE, other: SDE) -> "Line":
        """Returns the score under another SDE."""
        return Line(self.without_y.under(sde, other), self.with_y.under(sde, other), self.guidance)


class ExactClassifier(nn.Module):
    r"""The classifier log p(k | x, t) = log r_k of a mixture's components, with r_k of the module's docstring.

    :meth:`given` returns that of any y,

    .. math:: \log p_t(y \mid x) = \log\sum_k r_k(x)\, p(y \mid k) .
    """

    def __init__(self, oracle: Oracle):
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns log p(k | x, t) in nats, (B, *) and (B,) to (B, K)."""
        return self.oracle._terms(x, t)[0].log_softmax(1)

    def given(self, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the function log p(y | x, t) up to a constant, (B, *) and (B,) to (B,), for y (1 or B, width)."""
        evidence = self.oracle.evidence(y.to(self.oracle.log_weights))
        return lambda x, t: torch.logsumexp(self(x, t) + evidence.to(x), dim=1)

    def under(self, sde: SDE, other: SDE) -> "ExactClassifier":
        """Returns the classifier under another SDE."""
        return ExactClassifier(self.oracle.under(sde, other))
