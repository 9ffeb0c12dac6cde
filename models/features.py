r"""Small classifiers of clean data, whose last hidden layer gives the features in which samples are compared.

.. math:: x \mapsto h(x) \mapsto \log p_\phi(k \mid x) = \log\mathrm{softmax}(W h + b)_k

They are trained on the run's own data. So they learn the features that matter for these data, unlike a network trained
on another data set, and no weights need be downloaded. Distances of these features tell which of two samplers is nearer
to these data, but cannot be compared with distances of another network's features. Therefore a metric's name contains
the network's ``title``.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout

from .linear import Linear
from .unet import group_norm


class FeatureCNN(nn.Module):
    """The classifier of images of any height, width and number of channels.

    It has one convolution at the finest resolution and two at each coarser one, the second of them residual. h(x) is
    the mean over the remaining pixels.

    Arguments:
        shape: the shape (C, H, W) of one image.
        classes: the number K of classes, or of rotations of unlabelled images.
        channels: the channels at each resolution, from the finest to the coarsest; the last is the length of h.
        dropout: the share of features dropped in training.

    Attributes:
        title: the network's name in metrics.
        conditional: True, so that the trainer calls :meth:`given` with the y of each batch.
    """

    title: ClassVar[str] = "cnn"
    conditional: ClassVar[bool] = True

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        channels: list[int] | tuple[int, ...] = (16, 32, 64, 128),
        dropout: float = 0.2,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"task/features=cnn takes images of shape (C, H, W), the data have {tuple(shape)}; type "
                f"task/features=mlp, or task/features=values"
            )
        if not channels or min(channels) < 1:
            raise ValueError(f"`channels`={list(channels)} must be at least one level of at least one channel")
        check_dropout(dropout)
        self.first = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm_1": group_norm(before),
                    "wider": nn.Conv2d(before, width, 3, padding=1),
                    "norm_2": group_norm(width),
                    "again": nn.Conv2d(width, width, 3, padding=1),
                }
            )
            for before, width in pairwise(channels)
        )
        self.norm = group_norm(channels[-1])
        self.dropout = Dropout(dropout)
        self.last = Linear(channels[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """Returns h(x), (B, C, H, W) to (B, F)."""
        h = self.first(x)
        for level in self.levels:
            h = functional.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
            h = level["wider"](functional.silu(level["norm_1"](h)))
            h = h + level["again"](functional.silu(level["norm_2"](h)))
        return functional.silu(self.norm(h)).mean((2, 3))

    def log_prob(self, features: Tensor) -> Tensor:
        """Returns log p(k | x) in nats from h(x), (B, F) to (B, K)."""
        return self.last(self.dropout(features)).log_softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns log p(k | x) in nats, (B, C, H, W) to (B, K)."""
        return self.log_prob(self.features(x))

    def given(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns the function log p(y | x), (B, C, H, W) to (B,), of the encoded class labels y (B, K + 1)."""
        return lambda x: (self(x) * y[:, :-1]).sum(1)


class FeatureMLP(nn.Module):
    """The classifier of vectors.

    Arguments:
        shape: the shape (D,) of one vector.
        classes: the number K of classes.
        width, depth: the width and the number of the hidden layers; the last gives h(x).
        dropout: the share of features dropped in training.

    Attributes:
        title, conditional: as in :class:`FeatureCNN`.
    """

    title: ClassVar[str] = "mlp"
    conditional: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64, depth: int = 3, dropout: float = 0.0):
        super().__init__()
        if len(shape) != 1:
            raise ValueError(
                f"task/features=mlp takes vectors of shape (D,), the data have {tuple(shape)}; type task/features=cnn"
            )
        if min(width, depth) < 1:
            raise ValueError(f"`width`={width} and `depth`={depth} must be at least 1")
        check_dropout(dropout)
        self.layers = nn.ModuleList(Linear(shape[0] if i == 0 else width, width) for i in range(depth))
        self.dropout = Dropout(dropout)
        self.last = Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Returns h(x), (B, D) to (B, F)."""
        for layer in self.layers:
            x = functional.silu(layer(x))
        return x

    def log_prob(self, features: Tensor) -> Tensor:
        """Returns log p(k | x) in nats from h(x), (B, F) to (B, K)."""
        return self.last(self.dropout(features)).log_softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns log p(k | x) in nats, (B, D) to (B, K)."""
        return self.log_prob(self.features(x))

    def given(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns the function log p(y | x), (B, D) to (B,), of the encoded class labels y (B, K + 1)."""
        return lambda x: (self(x) * y[:, :-1]).sum(1)


def check_dropout(dropout: float) -> None:
    """Raises a ValueError unless a share of dropped features lies in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout`={dropout} must lie in [0, 1)")
