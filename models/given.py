r"""A network that is told y as well: F(x, c, y), and the same with y filled in.

With y unknown half of the time a network learns p(x | y) and p(x) at once. **Classifier-free guidance** (Ho and
Salimans, arXiv 2207.12598) goes along the line through both scores,

.. math:: \tilde s(x, t) = s(x, t) + w\,\bigl(s(x, t \mid y) - s(x, t)\bigr):

w = 0 is p(x), w = 1 is p(x | y), and more exaggerates what y changes (their w is one less). A score is affine in its
network's output, with factors that know no y, so the same line through the two outputs gives it, in one call of twice
the batch. For w other than 0 and 1 it is the score of no noised density, and the samples are not of p(x) p(y | x)^w
(arXiv 2409.13074); a likelihood is then that of the probability flow's own samples.
"""

import torch
from torch import Tensor, nn

from .embedding import FourierFeatures


class ConditionEmbedding(nn.Module):
    """Features of y, (B, condition) to (B, width).

    Arguments:
        condition: the length of what the network is told of y; see :mod:`scoresde.data.condition`.
        width: the length of the result.
        fourier: how many random directions of y are added as cosine and sine, as :class:`scoresde.models.MLP` does with
            x.
    """

    def __init__(self, condition: int, width: int, fourier: int = 32):
        super().__init__()
        self.condition = condition
        self.features = FourierFeatures(condition, fourier, 0.25)
        self.mix = nn.Sequential(nn.Linear(self.features.width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: Tensor) -> Tensor:
        return self.mix(self.features(y))


def add_condition(embedding: ConditionEmbedding | None, features: Tensor, y: Tensor | None) -> Tensor:
    """The noise level's features (1 or B, width), with those of y (1 or B, condition) added where there is a y."""
    if embedding is None:
        return features
    if y is None:
        raise ValueError("this network is one of p(x | y): ask score.given(y), or score.given(None) for p(x)")
    return features + embedding(y)


class Given(nn.Module):
    """F(x, c) of a network with its y filled in.

    Arguments:
        net: F(x, c, y).
        y: (B, condition), or (1, condition) for one y that all samples share.
        guidance: w of the module's text.
    """

    def __init__(self, net: nn.Module, y: Tensor, guidance: float = 1.0):
        super().__init__()
        self.net, self.guidance = net, guidance
        self.register_buffer("y", y, persistent=False)

    @property
    def cost(self) -> int:
        """Network evaluations a call."""
        return 1 if self.guidance in (0, 1) else 2

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if self.guidance == 1:
            return self.net(x, c, self.y)
        nothing = torch.zeros_like(self.y)
        if self.guidance == 0:
            return self.net(x, c, nothing)
        each = (len(x), -1)
        levels = c[:1].expand(2 * len(x)) if c.stride(0) == 0 else torch.cat([c, c])
        both = self.net(torch.cat([x, x]), levels, torch.cat([nothing.expand(*each), self.y.expand(*each)]))
        without, told = both.chunk(2)
        return torch.lerp(without, told, self.guidance)

    @property
    def energy(self):
        """E(x, c) of an energy network; None without one, or with guidance, which has none."""
        inner = getattr(self.net, "energy", None)
        if inner is None or self.guidance not in (0, 1):
            return None
        y = self.y if self.guidance else torch.zeros_like(self.y)
        return lambda x, c: inner(x, c, y)

    def of_rows(self, rows: Tensor) -> "Given":
        """The same for some rows of the batch; see :mod:`scoresde.sde_lib.rows`."""
        return self if len(self.y) == 1 else Given(self.net, self.y[rows], self.guidance)
