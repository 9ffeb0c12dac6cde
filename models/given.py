r"""Conditional networks F(x, c, y), and classifier-free guidance.

A zero vector y stands for p(x). If training replaces the y of a share of the examples by zeros, a network learns p(x |
y) and p(x) together. **Classifier-free guidance** (Ho and Salimans, arXiv 2207.12598) extrapolates along the line
through both scores,

.. math:: \tilde s(x, t) = s(x, t) + w\,\bigl(s(x, t \mid y) - s(x, t)\bigr):

w = 0 gives p(x), w = 1 gives p(x | y), and a larger w exaggerates the effect of y (the w of the paper is one less). A
score is affine in the network's output, with coefficients that do not depend on y. The same combination of the two
outputs therefore gives the guided score, in one call with twice the batch. For w other than 0 and 1 the guided score is
not the score of a noised density, and the samples do not follow p(x) p(y | x)^w (arXiv 2409.13074). A likelihood
computed with it is the density of the samples of its probability flow.
"""

import torch
from torch import Tensor, nn

from .embedding import FourierFeatures
from .linear import Linear


class ConditionEmbedding(nn.Module):
    """Features of y, (B, condition) to (B, width).

    Arguments:
        condition: the length of the encoded y; see :mod:`scoresde.data.condition`.
        width: the length of the result.
        fourier: the number of random directions whose cosine and sine are appended to y, as to x in
            :class:`scoresde.models.MLP`.
    """

    def __init__(self, condition: int, width: int, fourier: int = 32):
        super().__init__()
        self.condition = condition
        self.features = FourierFeatures(condition, fourier, 0.25)
        self.mix = nn.Sequential(Linear(self.features.width, width), nn.SiLU(), Linear(width, width))

    def forward(self, y: Tensor) -> Tensor:
        return self.mix(self.features(y))


def add_condition(embedding: ConditionEmbedding | None, features: Tensor, y: Tensor | None) -> Tensor:
    """Adds the features of y (1 or B, condition) to the noise level's (1 or B, width) if there is an embedding of y.

    Raises:
        ValueError: there is an embedding of y, and y is None.
    """
    if embedding is None:
        return features
    if y is None:
        raise ValueError("this network is one of p(x | y): use score.given(y), or score.given(None) for p(x)")
    return features + embedding(y)


class Given(nn.Module):
    """The network F(x, c) that a conditional network becomes with a fixed y, with guidance.

    Arguments:
        net: F(x, c, y).
        y: (B, condition), or (1, condition) for one y of all samples.
        guidance: the guidance scale w.
    """

    def __init__(self, net: nn.Module, y: Tensor, guidance: float = 1.0):
        super().__init__()
        self.net, self.guidance = net, guidance
        self.register_buffer("y", y, persistent=False)

    @property
    def cost(self) -> int:
        """The number of network evaluations in a call."""
        return 1 if self.guidance in (0, 1) else 2

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if self.guidance == 1:
            return self.net(x, c, self.y)
        no_y = torch.zeros_like(self.y)
        if self.guidance == 0:
            return self.net(x, c, no_y)
        # one level expanded to the batch stays expanded, since networks embed it once
        levels = c[:1].expand(2 * len(x)) if c.stride(0) == 0 else torch.cat([c, c])
        y = torch.cat([no_y.expand(len(x), -1), self.y.expand(len(x), -1)])
        both = self.net(torch.cat([x, x]), levels, y)
        unconditional, conditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, self.guidance)

    @property
    def energy(self):
        """The function E(x, c) of an energy network; None for other networks and for w other than 0 and 1."""
        inner = getattr(self.net, "energy", None)
        if inner is None or self.guidance not in (0, 1):
            return None
        y = self.y if self.guidance else torch.zeros_like(self.y)
        return lambda x, c: inner(x, c, y)

    def of_rows(self, rows: Tensor) -> "Given":
        """Returns the network for some rows of the batch; see :mod:`scoresde.sde_lib.rows`."""
        return self if len(self.y) == 1 else Given(self.net, self.y[rows], self.guidance)
