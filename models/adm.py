r"""ADM and EDM2: a U-Net F(x, c) with adaptive group normalisation, multi-head attention and resampling blocks.

ADM (Dhariwal and Nichol, arXiv 2105.05233, section 3): the blocks that halve or double the resolution resample both
their branches. The noise level and y scale and shift the normalised features. Attention is used at several resolutions
and in the middle, with heads of one width; a level with fewer channels has one narrower head.

With ``magnitude_preserving`` the same architecture consists of layers that preserve magnitudes
(:mod:`scoresde.models.magnitude`), as in EDM2 (Karras et al., arXiv 2312.02696). It has no group normalisation, and no
biases except in the embeddings of the noise level and of y. A branch is blended in with weight 0.3. The channels are
multiplied by 1 + g L, where L is linear in the noise level's features and the scalar g starts at 0. Queries, keys and
values are normalised. The image gets an additional channel of ones. The output is multiplied by a scalar that starts
at 0.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout, recomputed

from . import magnitude
from .attention import attend_pixels, heads_of
from .embedding import NoiseEmbedding
from .given import ConditionEmbedding, add_condition
from .linear import Linear, Pixelwise
from .magnitude import Map
from .resample import Resample
from .unet import group_norm, zero


class Block(nn.Module):
    """A residual block, which may resample both its branches, followed by attention if ``attend``.

    Arguments:
        inside, outside: the channels of the input and of the output.
        features: the length of the noise level's features.
        dropout: the share of values dropped before the last convolution in training.
        width: the channels of one attention head.
        resample: ``down``, ``up``, or empty for neither.
        attend: whether attention follows.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        features: int,
        dropout: float,
        width: int,
        resample: str = "",
        attend: bool = False,
    ):
        super().__init__()
        self.resample, self.resampler = resample, Resample(None)
        self.norm_1, self.norm_2 = group_norm(inside), group_norm(outside)
        self.conv_1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.told = Linear(features, 2 * outside)  # scale and shift
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.conv_2 = zero(nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = Pixelwise(inside, outside, 1) if inside != outside else nn.Identity()
        self.attention = Attention(outside, width) if attend else nn.Identity()

    def forward(self, x: Tensor, features: Tensor, size: torch.Size | None = None) -> Tensor:
        """Maps x (B, inside, H, W) and the noise level's features (1 or B, features) to (B, outside, H', W').

        Arguments:
            size: (H', W') of a block that doubles the resolution; ignored by others.
        """
        h = functional.silu(self.norm_1(x))
        h, x = resampled(self.resampler, self.resample, h, x, size)
        h = self.conv_1(h)
        scale, shift = self.told(features)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, self.norm_2(h), 1 + scale))
        return self.attention(self.shortcut(x) + self.conv_2(self.dropout(h)))


class Attention(nn.Module):
    """x + self-attention over the pixels of a feature map, in heads of ``width`` channels, or in one of fewer."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.heads = max(1, channels // width)
        self.norm = group_norm(channels)
        self.qkv = Pixelwise(channels, 3 * channels, 1)
        self.out = zero(Pixelwise(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attend_pixels(*heads_of(self.qkv(self.norm(x)), self.heads), x))


class MagnitudeBlock(nn.Module):
    """The block of EDM2, of layers that preserve magnitudes.

    On the way down both branches start from the shortcut's output, normalised.

    Arguments:
        decoder: whether the block is in the middle or on the way up; the others are as in :class:`Block`.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        features: int,
        dropout: float,
        width: int,
        resample: str = "",
        attend: bool = False,
        decoder: bool = False,
    ):
        super().__init__()
        self.resample, self.decoder, self.resampler = resample, decoder, Resample(None)
        self.conv_1 = Map(inside if decoder else outside, outside, 3)
        self.told, self.gain = Map(features, outside), nn.Parameter(torch.zeros(()))
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.conv_2 = Map(outside, outside, 3)
        self.shortcut = Map(inside, outside, 1) if inside != outside else None
        self.attention = MagnitudeAttention(outside, width) if attend else nn.Identity()

    def forward(self, x: Tensor, features: Tensor, size: torch.Size | None = None) -> Tensor:
        """Maps x and the noise level's features as :meth:`Block.forward` does."""
        x, _ = resampled(self.resampler, self.resample, x, x, size)
        if not self.decoder:
            x = x if self.shortcut is None else self.shortcut(x)
            x = magnitude.normalised(x, [1])
        h = self.conv_1(magnitude.silu(x))
        h = magnitude.silu(h * (1 + self.told(features, self.gain)[:, :, None, None]))
        h = self.conv_2(self.dropout(h))
        if self.decoder and self.shortcut is not None:
            x = self.shortcut(x)
        return self.attention(magnitude.blend(x, h))


class MagnitudeAttention(nn.Module):
    """A blend of x with self-attention, whose queries, keys and values have length sqrt(channels of a head)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.heads = max(1, channels // width)
        self.qkv, self.out = Map(channels, 3 * channels, 1), Map(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (magnitude.normalised(each, [-1]) for each in heads_of(self.qkv(x), self.heads))
        return magnitude.blend(x, self.out(attend_pixels(q, k, v, x)))


def resampled(
    resampler: Resample, direction: str, h: Tensor, x: Tensor, size: torch.Size | None
) -> tuple[Tensor, Tensor]:
    """Returns both branches h and x, halved for ``down``, doubled to ``size`` for ``up``, else unchanged.

    If h and x are the same tensor, it is resampled once.
    """
    if not direction:
        return h, x

    def change(branch: Tensor) -> Tensor:
        return resampler.down(branch) if direction == "down" else resampler.up(branch, size)

    changed = change(h)
    return changed, changed if x is h else change(x)


class ADM(nn.Module):
    """F(x, c) for images of any height, width and number of channels.

    Arguments:
        shape: the shape (C, H, W) of one image.
        channels: the channels at each resolution, from the finest to the coarsest.
        blocks: residual blocks at each resolution on the way down (one more on the way up).
        attention: the resolutions with self-attention, named by the longer side of the feature map in pixels; the
            middle always has it.
        head_channels: the channels of one attention head; a level with fewer channels has one head.
        dropout: the share of values dropped inside a block in training.
        magnitude_preserving: use the layers of EDM2; see the module's docstring.
        checkpointing: recompute the blocks in the backward pass instead of storing their inner values, for a fraction
            of the memory and a third more time.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: list[int] | tuple[int, ...] = (64, 128, 128),
        blocks: int = 2,
        attention: list[int] | tuple[int, ...] = (16, 14, 8, 7),
        head_channels: int = 64,
        dropout: float = 0.0,
        magnitude_preserving: bool = False,
        checkpointing: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        channels = list(channels)
        check(shape, channels, blocks, head_channels, dropout)
        self.preserving, self.checkpointing, self.condition = magnitude_preserving, checkpointing, condition
        features = 4 * channels[0]
        levels = len(channels)
        attends = [math.ceil(max(shape[1:]) / 2**level) in tuple(attention) for level in range(levels)]

        def block(
            inside: int, outside: int, resample: str = "", attend: bool = False, decoder: bool = False
        ) -> nn.Module:
            keys = inside, outside, features, dropout, head_channels, resample, attend
            return MagnitudeBlock(*keys, decoder=decoder) if magnitude_preserving else Block(*keys)

        self.noise = NoiseEmbedding(features)
        if magnitude_preserving:
            self.mix = Map(features, features)
            self.first = Map(shape[0] + 1, channels[0], 3)  # one more channel, of ones
        else:
            self.mix = Linear(features, features)
            self.first = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        skips, now = [channels[0]], channels[0]
        self.down = nn.ModuleList()
        for level, width in enumerate(channels):
            if level:
                self.down.append(block(now, now, "down"))
                skips.append(now)
            for _ in range(blocks):
                self.down.append(block(now, width, attend=attends[level]))
                now = width
                skips.append(now)
        self.middle = nn.ModuleList([block(now, now, attend=True, decoder=True), block(now, now, decoder=True)])
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(block(now + skips.pop(), width, attend=attends[level], decoder=True))
                now = width
            if level:
                self.up.append(block(now, now, "up", decoder=True))
        if magnitude_preserving:
            self.last, self.gain = Map(now, shape[0], 3), nn.Parameter(torch.zeros(()))
        else:
            self.last = nn.Sequential(group_norm(now), nn.SiLU(), zero(nn.Conv2d(now, shape[0], 3, padding=1)))
        self.known = ConditionEmbedding(condition, features) if condition else None

    def run(self, block: nn.Module, *inputs: Tensor | torch.Size | None) -> Tensor:
        """Returns a block's output, without storing its inner values in training with ``checkpointing``."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(block, block, *inputs)
        return block(*inputs)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        features = add_condition(self.known, self.mix(self.noise(c)), y)
        if self.preserving:
            features = magnitude.silu(magnitude.normalised(features, [1]))
            h = self.first(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        else:
            features = functional.silu(features)
            h = self.first(x)
        skips = [h]
        for block in self.down:
            h = self.run(block, h, features)
            skips.append(h)
        for block in self.middle:
            h = self.run(block, h, features)
        for block in self.up:
            if block.resample:
                h = self.run(block, h, features, skips[-1].shape[-2:])
                continue
            skip = skips.pop()
            both = magnitude.concatenated(h, skip) if self.preserving else torch.cat([h, skip], dim=1)
            h = self.run(block, both, features)
        return self.last(h, self.gain) if self.preserving else self.last(h)


def check(shape: tuple[int, ...], channels: list[int], blocks: int, head_channels: int, dropout: float) -> None:
    """Raises a ValueError if no network can be made with these arguments."""
    if len(shape) != 3:
        raise ValueError(
            f"model=adm takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
        )
    if not channels or min(channels) < 1 or blocks < 1 or head_channels < 1:
        raise ValueError(
            f"`channels`={channels}, `blocks`={blocks} and `head_channels`={head_channels}: at least one "
            f"level, block and channel"
        )
    for width in channels:
        if width > head_channels and width % head_channels:
            raise ValueError(
                f"`head_channels`={head_channels} must divide `channels`={channels}; type "
                f"`head_channels`={math.gcd(*channels)}"
            )
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout`={dropout} must lie in [0, 1)")
