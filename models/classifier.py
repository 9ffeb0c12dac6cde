r"""A classifier of noisy data, and guidance by it (Dhariwal and Nichol, arXiv 2105.05233; Song et al., arXiv
2011.13456, eq. 14).

.. math:: \nabla\log p_t(x \mid y) = \nabla\log p_t(x) + \nabla\log p_t(y \mid x), \qquad
          \tilde s = s(x, t) + w\,\nabla\log p_\phi(y \mid x, t)

The first equation is Bayes' rule. With w = 1 and the exact classifier of *noisy* x, the exact score of p(x) is guided
to that of p(x | y). The network of a classifier takes x/sqrt(alpha^2 + sigma^2) and log(sigma/alpha)/4, as that of a
score model does under most parameterisations.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import SDE, ScoreFn, of_rows, per_sample, under

from .embedding import FourierFeatures, NoiseEmbedding
from .linear import Linear
from .unet import Residual, group_norm


class Classifier(nn.Module):
    """The classifier log p(k | x, t) of K classes, from a network of x and the noise level.

    Arguments:
        sde: the forward SDE.
        net: maps x (B, *) and c_noise (B,) to logits (B, K).
    """

    conditional = True  # so that the trainer calls given(y) with the y of each batch

    def __init__(self, sde: SDE, net: nn.Module):
        super().__init__()
        self.sde, self.net = sde, net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns log p(k | x, t) at x (B, *) and t (B,), shape (B, K), nats."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        scale = per_sample((alpha.square() + sigma.square()).rsqrt().to(x.dtype), x)
        return self.net(scale * x, ((sigma / alpha).log() / 4).to(x.dtype)).log_softmax(1)

    def given(self, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the function log p(y | x, t), (B, *) and (B,) to (B,).

        Arguments:
            y: the encoded class labels (B, K + 1), or (1, K + 1) for one label of all samples.
        """
        return lambda x, t: (self(x, t) * y[:, :-1]).sum(1)

    def under(self, sde: SDE, other: SDE) -> "Classifier":
        """Returns the same network under the SDE ``other``; see :func:`scoresde.sde_lib.under`."""
        return Classifier(other, self.net)


class GuidedByClassifier(nn.Module):
    """The score s(x, t) + w grad log p(y | x, t).

    Arguments:
        score: s, the score of p(x), or that of p(x | y) for additional guidance.
        classifier: a :class:`Classifier`, or another module with its methods ``given`` and ``under``.
        y: as the classifier's ``given`` takes it: (B, condition), or (1, condition) for one y of all samples.
        guidance: the guidance scale w.
    """

    cost = 2  # network evaluations in a call: the score's and the classifier's

    def __init__(self, score: ScoreFn, classifier: nn.Module, y: Tensor, guidance: float = 1.0):
        super().__init__()
        self.score, self.classifier, self.guidance = score, classifier, guidance
        self.register_buffer("y", y, persistent=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the guided score at x (B, *) and t (B,). It is differentiable if gradients are on, in x too if x
        requires one.
        """
        differentiable, log_prob = torch.is_grad_enabled(), self.classifier.given(self.y)
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            (pull,) = torch.autograd.grad(log_prob(at, t).sum(), at, create_graph=differentiable)
        return self.score(at if differentiable else x, t) + self.guidance * pull

    def of_rows(self, rows: Tensor) -> "GuidedByClassifier":
        """Returns the score for some rows of the batch; see :mod:`scoresde.sde_lib.rows`."""
        y = self.y if len(self.y) == 1 else self.y[rows]
        return GuidedByClassifier(of_rows(self.score, rows), self.classifier, y, self.guidance)

    def under(self, sde: SDE, other: SDE) -> "GuidedByClassifier":
        """Returns the guided score under the SDE ``other``; see :func:`scoresde.sde_lib.under`."""
        return GuidedByClassifier(
            under(sde, self.score, other), self.classifier.under(sde, other), self.y, self.guidance
        )


class MLPClassifier(nn.Module):
    """A multilayer perceptron for the logits of vectors; the noise level shifts each layer's input to its nonlinearity.

    Arguments:
        shape: the shape (D,) of one vector.
        classes: the number K of classes.
        width, depth: the width and the number of the hidden layers.
        fourier, fourier_scale: as in :class:`scoresde.models.MLP`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        width: int = 128,
        depth: int = 3,
        fourier: int = 32,
        fourier_scale: float = 0.25,
    ):
        super().__init__()
        if len(shape) != 1:
            raise ValueError(
                f"classifier=mlp takes vectors of shape (D,), the data have {tuple(shape)}; type classifier=unet"
            )
        for key, value, least in (("width", width, 1), ("depth", depth, 1), ("fourier", fourier, 0)):
            if value < least:
                raise ValueError(f"`{key}`={value} must be at least {least}")
        self.features, self.noise = FourierFeatures(shape[0], fourier, fourier_scale), NoiseEmbedding(32)
        self.layers = nn.ModuleList(Linear(self.features.width if i == 0 else width, width) for i in range(depth))
        self.shifts = nn.ModuleList(Linear(32, width, bias=False) for _ in range(depth))
        self.last = Linear(width, classes)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Maps x (B, D) and the noise level c (B,) to logits (B, K)."""
        h, noise = self.features(x), self.noise(c)
        for layer, shift in zip(self.layers, self.shifts, strict=True):
            h = functional.silu(layer(h) + shift(noise))
        return self.last(h)


class UNetClassifier(nn.Module):
    """The logits of images from the encoder of a U-Net: a linear map of the mean over the pixels of its last level.

    Each level has two residual blocks.

    Arguments:
        shape: the shape (C, H, W) of one image.
        classes: the number K of classes.
        channels: the channels at each resolution, from the finest to the coarsest.
        dropout: the share of values dropped inside a block in training.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        channels: list[int] | tuple[int, ...] = (32, 64, 64),
        dropout: float = 0.1,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"classifier=unet takes images of shape (C, H, W), the data have {tuple(shape)}; type classifier=mlp"
            )
        if not channels or min(channels) < 1:
            raise ValueError(f"`channels`={list(channels)} must be at least one level of at least one channel")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout`={dropout} must lie in [0, 1)")
        noise = 4 * channels[0]
        self.noise = nn.Sequential(NoiseEmbedding(noise), Linear(noise, noise), nn.SiLU())
        self.first = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Residual(before, width, noise, dropout), Residual(width, width, noise, dropout)])
            for before, width in pairwise([channels[0], *channels])
        )
        self.last = nn.Sequential(group_norm(channels[-1]), nn.SiLU())
        self.logits = Linear(channels[-1], classes)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Maps x (B, C, H, W) and the noise level c (B,) to logits (B, K)."""
        noise, h = self.noise(c), self.first(x)
        for depth, level in enumerate(self.blocks):
            if depth:
                h = functional.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
            for block in level:
                h = block(h, noise)
        return self.logits(self.last(h).mean((2, 3)))
