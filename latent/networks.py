"""The encoders and decoders of latent-variable models: networks from data to a vector, and from a vector to one or
more parameters of each value of the data.

A :class:`Networks` holds no weights. It is the configuration from which a model makes its networks, in the sizes that
it needs.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.models.linear import Linear
from scoresde.sde_lib import Dropout


class Networks(ABC):
    """Makes encoders and decoders of one kind."""

    @abstractmethod
    def encoder(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """Returns a network from (B, *shape) to (B, outputs)."""

    @abstractmethod
    def decoder(self, latent: int, parameters: int, shape: tuple[int, ...]) -> nn.Module:
        """Returns a network from (B, latent) to (B, parameters, *shape)."""


@dataclass(frozen=True)
class Dense(Networks):
    """Multilayer perceptrons, for data of any shape.

    Arguments:
        width: the width of the hidden layers.
        depth: the number of hidden layers; 0 makes both networks affine.
        dropout: the share of hidden values dropped in training; without it small data sets are soon overfitted.
    """

    width: int = 128
    depth: int = 2
    dropout: float = 0.0

    def __post_init__(self):
        check("width", self.width, 1, 128)
        check("depth", self.depth, 0, 2)
        check_dropout(self.dropout)

    def encoder(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), *self.layers(math.prod(shape), outputs))

    def decoder(self, latent: int, parameters: int, shape: tuple[int, ...]) -> nn.Module:
        layers = self.layers(latent, parameters * math.prod(shape))
        return nn.Sequential(*layers, nn.Unflatten(1, (parameters, *shape)))

    def layers(self, inputs: int, outputs: int) -> list[nn.Module]:
        widths, layers = [inputs, *[self.width] * self.depth], []
        for before, after in pairwise(widths):
            layers += [Linear(before, after), nn.SiLU(), *dropped(self.dropout)]
        return [*layers, Linear(widths[-1], outputs)]


@dataclass(frozen=True)
class Convolutional(Networks):
    """Convolutions at falling, or rising, resolution, and a dense layer at the lowest; for images of any size.

    Heights and widths need no common factor: h x w pixels are followed by ceil(h/2) x ceil(w/2), and the decoder goes
    through the same sizes.

    Arguments:
        channels: the number of channels at each resolution, from the highest to the lowest; the highest has half the
            data's height and width. The decoder has as many at the data's own resolution.
        width: the width of the dense layer.
        dropout: the share of the dense layer's values dropped in training.
    """

    channels: list[int] | tuple[int, ...] = (32, 64)
    width: int = 256
    dropout: float = 0.0

    def __post_init__(self):
        check("width", self.width, 1, 256)
        check_dropout(self.dropout)
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"`channels`={list(self.channels)} must be numbers of at least 1; type `channels`=[32,64]")

    def sizes(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """Returns heights and widths from the data's to the lowest resolution; ValueError if the data are no images."""
        if len(shape) != 3:
            raise ValueError(
                f"`networks`=Convolutional takes images of shape (C, H, W), the data have shape {tuple(shape)}; type "
                f"`networks._target_`=latent.Dense"
            )
        sizes = [tuple(shape[1:])]
        for _ in self.channels:
            sizes.append(tuple(math.ceil(side / 2) for side in sizes[-1]))
        return sizes

    def encoder(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        widths, layers = [shape[0], *self.channels], []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        flat = widths[-1] * math.prod(self.sizes(shape)[-1])
        layers += [nn.Flatten(), Linear(flat, self.width), nn.SiLU(), *dropped(self.dropout)]
        return nn.Sequential(*layers, Linear(self.width, outputs))

    def decoder(self, latent: int, parameters: int, shape: tuple[int, ...]) -> nn.Module:
        sizes, coarsest = self.sizes(shape), self.channels[-1]
        height, width = sizes[-1]
        layers = [Linear(latent, self.width), nn.SiLU(), *dropped(self.dropout)]
        layers += [Linear(self.width, coarsest * height * width), nn.SiLU()]
        layers.append(nn.Unflatten(1, (coarsest, height, width)))
        widths = [*self.channels[::-1], self.channels[0]]
        for (before, after), size in zip(pairwise(widths), sizes[-2::-1], strict=True):
            layers += [Up(before, after, size), nn.SiLU()]
        last = nn.Conv2d(widths[-1], parameters * shape[0], 3, padding=1)
        return nn.Sequential(*layers, last, nn.Unflatten(1, (parameters, shape[0])))


class Up(nn.Module):
    """Maps (B, channels_in, h, w) to (B, channels, *size): doubles the resolution, and crops to ``size``."""

    def __init__(self, channels_in: int, channels: int, size: tuple[int, int]):
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(channels_in, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pixel_shuffle(self.conv(x), 2)
        return x[..., : self.size[0], : self.size[1]]


def dropped(share: float) -> list[nn.Module]:
    return [Dropout(share)] if share else []


def check_dropout(share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"`dropout`={share} must lie in [0, 1); type `dropout`=0.2")


def check(key: str, value: int, least: int, instead: int) -> None:
    if value < least:
        raise ValueError(f"`{key}`={value} must be at least {least}; type `{key}`={instead}")


def without_gradients(network: nn.Module, x: Tensor) -> Tensor:
    """Returns the network's value, differentiable in x and not in its weights."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return torch.func.functional_call(network, weights, (x,))
