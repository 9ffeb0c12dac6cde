"""A U-Net F(x, c) for images of any height, width and number of channels."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout, recomputed

from .attention import attend_pixels, heads_of
from .embedding import NoiseEmbedding, PixelFeatures
from .given import ConditionEmbedding, add_condition
from .linear import Linear, Pixelwise


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns a group normalisation: at most 32 groups of at least 4 channels; fewer than 8 channels make one group."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 4))), channels, eps=1e-6)


def zero(module: nn.Module) -> nn.Module:
    """Sets a layer to zero and returns it: a residual branch that ends in it starts at zero."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))) * (1 + scale(c)) + shift(c))), scale and shift linear in features of c.

    Arguments:
        channels_in, channels: the channels of the input and of the output; x is mapped linearly where they differ.
        noise: the length of the noise level's features.
        dropout: the share of values dropped before the last convolution in training.
    """

    def __init__(self, channels_in: int, channels: int, noise: int, dropout: float):
        super().__init__()
        self.norm_1 = group_norm(channels_in)
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.modulation = Linear(noise, 2 * channels)
        self.norm_2 = group_norm(channels)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.conv_2 = zero(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = Pixelwise(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h = self.conv_1(functional.silu(self.norm_1(x)))
        scale, shift = self.modulation(noise)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, self.norm_2(h), 1 + scale))
        return self.skip(x) + self.conv_2(self.dropout(h))


class Attention(nn.Module):
    """x + self-attention over the pixels of a feature map."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = Pixelwise(channels, 3 * channels, 1)
        self.out = zero(Pixelwise(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attend_pixels(*heads_of(self.qkv(self.norm(x)), self.heads), x))


class UNet(nn.Module):
    """A U-Net of residual blocks, with attention at chosen resolutions.

    Images may have any size: a level of h x w pixels is followed by one of ceil(h/2) x ceil(w/2), and the way up
    returns to the sizes of the skips.

    Arguments:
        shape: the shape (C, H, W) of one image.
        channels: the channels at each resolution, from the finest to the coarsest.
        blocks: residual blocks at each resolution on the way down, and as many on the way up.
        attention: the resolutions with self-attention, named by the longer side of the feature map in pixels.
        heads: the number of attention heads.
        dropout: the share of values dropped inside a block in training.
        embedding: the embedding of the noise level, ``smooth`` or ``steps``; see :mod:`scoresde.models.embedding`.
        pixel_features, pixel_unit: Fourier features of the image's values; see
            :class:`scoresde.models.embedding.PixelFeatures`.
        checkpointing: recompute the blocks in the backward pass instead of storing their inner values, for a fraction
            of the memory and a third more time.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: list[int] | tuple[int, ...] = (32, 64, 64),
        blocks: int = 1,
        attention: list[int] | tuple[int, ...] = (8, 7),
        heads: int = 2,
        dropout: float = 0.0,
        embedding: Literal["smooth", "steps"] = "smooth",
        pixel_features: list[float] | tuple[float, ...] = (),
        pixel_unit: float = 1.0,
        checkpointing: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"model=unet takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
            )
        channels = list(channels)
        if not channels or min(channels) < 1 or blocks < 1:
            raise ValueError(f"`channels`={channels} and `blocks`={blocks}: at least one level, block and channel")
        if heads < 1:
            raise ValueError(f"`heads`={heads} must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout`={dropout} must lie in [0, 1)")
        noise = 4 * channels[0]
        self.noise = nn.Sequential(NoiseEmbedding(noise, embedding), Linear(noise, noise), nn.SiLU())
        self.pixels = PixelFeatures(pixel_features, pixel_unit)
        self.first = nn.Conv2d(shape[0] * self.pixels.count, channels[0], 3, padding=1)

        side = max(shape[1:])
        sides = [math.ceil(side / 2**level) for level in range(len(channels))]
        attends = [side in tuple(attention) for side in sides]
        for width, needed in zip(channels, attends, strict=True):
            if needed and width % heads:
                raise ValueError(f"`heads`={heads} must divide the {width} channels of every level with attention")

        def block(before: int, after: int, attend: bool) -> nn.ModuleList:
            return nn.ModuleList(
                [Residual(before, after, noise, dropout), Attention(after, heads) if attend else nn.Identity()]
            )

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, now = [channels[0]], channels[0]
        for width, attend in zip(channels, attends, strict=True):
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(block(now, width, attend))
                now = width
                skips.append(now)
            self.down.append(level)
        self.middle = nn.ModuleList([block(now, now, attends[-1]), block(now, now, False)])
        for width, attend in zip(reversed(channels), reversed(attends), strict=True):
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(block(now + skips.pop(), width, attend))
                now = width
            self.up.append(level)
        self.checkpointing, self.condition = checkpointing, condition
        self.last = nn.Sequential(
            group_norm(now + skips[0]), nn.SiLU(), zero(nn.Conv2d(now + skips[0], shape[0], 3, padding=1))
        )
        # Made last, so that the other layers draw the same initial weights with and without a condition.
        self.known = ConditionEmbedding(condition, noise) if condition else None

    def run(self, block: nn.ModuleList, h: Tensor, noise: Tensor) -> Tensor:
        """Returns a block's output, without storing its inner values in training with ``checkpointing``."""
        residual, attention = block
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(lambda h, noise: attention(residual(h, noise)), block, h, noise)
        return attention(residual(h, noise))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        noise = add_condition(self.known, self.noise(c), y)
        h = self.first(self.pixels(x, c))
        skips = [h]
        for depth, level in enumerate(self.down):
            if depth:
                h = functional.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
            for block in level:
                h = self.run(block, h, noise)
                skips.append(h)
        for block in self.middle:
            h = self.run(block, h, noise)
        for level in self.up:
            if h.shape[-2:] != skips[-1].shape[-2:]:
                h = functional.interpolate(h, size=skips[-1].shape[-2:], mode="nearest")
            for block in level:
                h = self.run(block, torch.cat([h, skips.pop()], dim=1), noise)
        return self.last(torch.cat([h, skips.pop()], dim=1))
