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
from copy import copy

import torch
from torch import Tensor, nn

from sde_lib import SDE


class Oracle(nn.Module):
    """score(x, t) of the mixture's marginal at t; it has no parameters.

    Arguments:
        sde: the forward SDE.
        components: weights (K,), means (K, D) and stds (K,) of the mixture in model units; ``auto`` in the yaml
            takes the data's.
    """

    def __init__(self, sde: SDE, components: tuple[Tensor, Tensor, Tensor]):
        super().__init__()
        self.sde = sde
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
