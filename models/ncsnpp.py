r"""NCSN++, DDPM++ and DDPM: one U-Net with the options of the paper (Song et al., arXiv 2011.13456, appendix H).

It has residual blocks at falling and rising resolution with skips between them, attention in the middle and at chosen
resolutions (one in the paper), and these options:

* ``residual``: with ``biggan`` a block resamples both its branches (Brock et al., arXiv 1809.11096), with ``ddpm`` a
  convolution (``resample_with_conv``) or a fixed map resamples between blocks (Ho et al., arXiv 2006.11239);
* ``skip_rescale``: sums of two branches are divided by sqrt(2);
* ``fir_kernel``: the filter of :mod:`scoresde.models.resample`, or none;
* ``progressive_input``: the image, halved repeatedly, joins each level after the first on the way down;
  ``progressive``: each level on the way up adds to an image, which is doubled repeatedly (Karras et al., arXiv
  1912.04958). With ``residual`` the image takes over the features of each level.

NCSN++ is biggan with the filter and progressive_input=residual. DDPM++ is biggan without either. DDPM has the ddpm
blocks, neither of the two, and no rescaling.

The epsilon of group normalisation is 1e-6 in all three. The number of groups differs: NCSN++ and DDPM++ have
min(C/4, 32) groups for C channels, DDPM always has 32 (``groups``). The rules agree from 128 channels on; with fewer
channels the same weights compute two functions.

The published networks take log sigma through random Fourier features, or a step number through a sinusoidal embedding
(:mod:`scoresde.models.clock`), and x at the scale of their SDE (``parameterisation.input``). Networks that take sigma
have images in [0, 1]. In model units, [-1, 1], every sigma is twice as large, so that they take log(sigma/2) here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout, recomputed

from .attention import attend_pixels, heads_of
from .clock import Clock
from .embedding import NoiseEmbedding, Positional, RandomFourier
from .given import ConditionEmbedding, add_condition
from .linear import Linear, Pixelwise
from .resample import Down, Resample, Up


def group_norm(channels: int, groups: int | None = None) -> nn.GroupNorm:
    """Returns the group normalisation of (B, channels, H, W).

    Arguments:
        groups: the number of groups; None for min(C/4, 32) with C channels, or the greatest common divisor of this
            and C where it does not divide C.
    """
    return nn.GroupNorm(groups or math.gcd(channels, max(1, min(channels // 4, 32))), channels, eps=1e-6)


def start(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """Draws uniform weights of variance scale / (mean of fan-in and fan-out), sets biases to 0, returns the module."""
    nn.init.xavier_uniform_(module.weight, gain=math.sqrt(scale))
    nn.init.zeros_(module.bias)
    return module


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + linear(noise)))), both branches resampled by ``direction``.

    Arguments:
        inside, outside: the channels of the input and of the output; x is mapped linearly where they differ, and
            where the resolution changes.
        noise, dropout, rescale, scale, resample, groups: as in :class:`Layers`.
        direction: ``down`` halves the resolution, ``up`` doubles it.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        noise: int,
        dropout: float,
        rescale: bool,
        scale: float,
        resample: Resample | None = None,
        direction: Literal["same", "down", "up"] = "same",
        groups: int | None = None,
    ):
        super().__init__()
        self.resample, self.direction = resample, direction
        self.weight = math.sqrt(0.5) if rescale else 1.0
        self.norm_1 = group_norm(inside, groups)
        self.conv_1 = start(nn.Conv2d(inside, outside, 3, padding=1))
        self.noise = start(Linear(noise, outside)) if noise else None
        self.norm_2 = group_norm(outside, groups)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.conv_2 = start(nn.Conv2d(outside, outside, 3, padding=1), scale)
        plain = inside == outside and direction == "same"
        self.shortcut = None if plain else start(Pixelwise(inside, outside, 1))

    def forward(self, x: Tensor, noise: Tensor | None, size: torch.Size | None = None) -> Tensor:
        """Maps x (B, inside, H, W), with features (1 or B, noise); ``up`` takes the size of its result."""
        h = functional.silu(self.norm_1(x))
        if self.direction == "down":
            h, x = self.resample.down(h), self.resample.down(x)
        elif self.direction == "up":
            h, x = self.resample.up(h, size), self.resample.up(x, size)
        h = self.conv_1(h)
        if self.noise is not None:
            h = h + self.noise(noise)[:, :, None, None]
        h = self.conv_2(self.dropout(functional.silu(self.norm_2(h))))
        x = x if self.shortcut is None else self.shortcut(x)
        return x + h if self.weight == 1 else (x + h) * self.weight


class Attention(nn.Module):
    """x + self-attention over the pixels of a feature map."""

    def __init__(self, channels: int, heads: int, rescale: bool, scale: float, groups: int | None = None):
        super().__init__()
        self.heads, self.weight = heads, math.sqrt(0.5) if rescale else 1.0
        self.norm = group_norm(channels, groups)
        # One convolution for queries, keys and values; each third has its own published initialisation of scale 0.1.
        self.qkv = Pixelwise(channels, 3 * channels, 1)
        with torch.no_grad():
            for part in self.qkv.weight.split(channels):
                nn.init.xavier_uniform_(part, gain=math.sqrt(0.1))
        nn.init.zeros_(self.qkv.bias)
        self.out = start(Pixelwise(channels, channels, 1), scale)

    def forward(self, x: Tensor) -> Tensor:
        h = self.out(attend_pixels(*heads_of(self.qkv(self.norm(x)), self.heads), x))
        return x + h if self.weight == 1 else (x + h) * self.weight


class Combine(nn.Module):
    """Joins a linear map of the halved image with the features h of the level, by a sum or by concatenation.

    Arguments:
        inside, outside: the channels of the image and of its map.
    """

    def __init__(self, inside: int, outside: int, method: Literal["sum", "cat"]):
        super().__init__()
        self.conv, self.method = start(Pixelwise(inside, outside, 1)), method

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return self.conv(image) + h if self.method == "sum" else torch.cat([self.conv(image), h], dim=1)


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network from the options that all its levels share.

    Arguments:
        noise: the length of the noise level's features; 0 for none.
        dropout, heads, groups: as in :class:`NCSNpp`.
        rescale: whether sums are divided by sqrt(2).
        scale: the initial variance of a branch's last layer, relative to other layers'.
        resample: halves and doubles feature maps.
        residual: the kind of block, ``biggan`` or ``ddpm``.
        learnt: whether a convolution resamples between ``ddpm`` blocks.
    """

    noise: int
    dropout: float
    rescale: bool
    scale: float
    heads: int
    groups: int | None
    resample: Resample
    residual: str
    learnt: bool

    def block(self, inside: int, outside: int, direction: Literal["same", "down", "up"] = "same") -> Residual:
        """Returns a residual block."""
        return Residual(
            inside, outside, self.noise, self.dropout, self.rescale, self.scale, self.resample, direction, self.groups
        )

    def attention(self, channels: int) -> Attention:
        """Returns self-attention over a feature map."""
        if channels % self.heads:
            raise ValueError(f"`heads`={self.heads} must divide the {channels} channels of every level with attention")
        return Attention(channels, self.heads, self.rescale, self.scale, self.groups)

    def halving(self, channels: int) -> nn.Module:
        """Returns the module that leads from one level to the next coarser one."""
        if self.residual == "biggan":
            return self.block(channels, channels, "down")
        return Down(channels, channels, self.resample, self.learnt)

    def doubling(self, channels: int) -> nn.Module:
        """Returns the module that leads from one level to the next finer one."""
        if self.residual == "biggan":
            return self.block(channels, channels, "up")
        return Up(channels, channels, self.resample, self.learnt)


def noise_features(
    embedding: str, width: int, fourier_scale: float, data_range: float, clock: Clock | None
) -> nn.Module | None:
    """Returns the embedding of the noise level by its name, None for ``none``; the arguments are NCSNpp's keys.

    Raises:
        ValueError: there is no embedding of this name.
    """
    if embedding == "fourier":
        return RandomFourier(width, fourier_scale, data_range)
    if embedding == "positional":
        return Positional(width, clock)
    if embedding == "smooth":
        return NoiseEmbedding(width)
    if embedding != "none":
        raise ValueError(f"`embedding`={embedding} must be fourier, positional, smooth or none")
    return None


class NCSNpp(nn.Module):
    """F(x, c) for images of any height, width and number of channels.

    Arguments:
        shape: the shape (C, H, W) of one image.
        width: the channels of the first layer.
        multipliers: the channels at each resolution divided by ``width``, from the finest to the coarsest.
        blocks: residual blocks at each resolution on the way down (one more on the way up).
        attention: the resolutions with self-attention, named by the longer side of the feature map in pixels; the
            middle always has it.
        heads: the number of attention heads; published: 1.
        attention_up: attention on the way up after the ``last`` block of a level, as published, or after ``all``, as
            in DDPM's own network (arXiv 2006.11239).
        dropout: the share of values dropped inside a block in training.
        embedding: the embedding of the noise level: ``fourier`` of log sigma, ``positional`` of a step number,
            ``smooth`` for fewer evaluations by an ODE solver (:mod:`scoresde.models.embedding`), or ``none`` for a
            network without the noise level as input.
        fourier_scale: the std of the frequencies of the random Fourier features.
        data_range: the width of the data's range in model units, which is the unit of sigma in the embedding.
        clock: for ``embedding=positional``, the step number of a noise level; None for n = 250 (c + 2.5) of
            :mod:`scoresde.models.embedding`.
        residual: the kind of block, ``biggan`` or ``ddpm``.
        groups: the number of groups of every normalisation, which must divide ``width``; None for min(C/4, 32) groups
            of C channels. Published: 32 for DDPM, None for NCSN++ and DDPM++.
        fir_kernel: the filter's taps; None for means of four pixels and nearest neighbours.
        resample_with_conv: whether a convolution resamples between ``ddpm`` blocks.
        skip_rescale: whether sums are divided by sqrt(2).
        progressive: the image that is built on the way up: ``none``, ``output_skip`` or ``residual``.
        progressive_input: the image that joins on the way down: ``none``, ``input_skip`` or ``residual``.
        combine: how this image joins the features with ``input_skip``: ``sum`` or ``cat``.
        init_scale: the initial variance of the last layer of a branch, and of the network, relative to other layers'.
        checkpointing: recompute the blocks in the backward pass instead of storing their inner values, for a fraction
            of the memory and a third more time.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        multipliers: list[int] | tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: list[int] | tuple[int, ...] = (16,),
        heads: int = 1,
        attention_up: Literal["last", "all"] = "last",
        dropout: float = 0.1,
        embedding: Literal["fourier", "positional", "smooth", "none"] = "fourier",
        fourier_scale: float = 16.0,
        data_range: float = 2.0,
        clock: Clock | None = None,
        residual: Literal["biggan", "ddpm"] = "biggan",
        groups: int | None = None,
        fir_kernel: list[float] | None = (1.0, 3.0, 3.0, 1.0),
        resample_with_conv: bool = True,
        skip_rescale: bool = True,
        progressive: Literal["none", "output_skip", "residual"] = "none",
        progressive_input: Literal["none", "input_skip", "residual"] = "residual",
        combine: Literal["sum", "cat"] = "sum",
        init_scale: float = 0.0,
        checkpointing: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        check(shape, width, multipliers, blocks, heads, dropout, init_scale, data_range, groups)
        if clock is not None and embedding != "positional":
            raise ValueError(f"`clock` is for `embedding`=positional, and this is {embedding}; leave it out")
        self.residual, self.progressive, self.progressive_input = residual, progressive, progressive_input
        self.combine, self.resample_with_conv, self.groups = combine, resample_with_conv, groups
        self.checkpointing, self.condition, self.attention_up = checkpointing, condition, attention_up
        self.data_range, self.size, self.dropout, self.blocks = data_range, tuple(shape[1:]), dropout, blocks
        self.taps = None if fir_kernel is None else [float(tap) for tap in fir_kernel]
        self.weight = math.sqrt(0.5) if skip_rescale else 1.0
        noise = 0 if embedding == "none" and not condition else 4 * width
        self.features = noise_features(embedding, width, fourier_scale, data_range, clock)
        if self.features is not None:
            inside = 2 * width if embedding == "fourier" else width
            self.noise = nn.Sequential(start(Linear(inside, noise)), nn.SiLU(), start(Linear(noise, noise)))

        # The order in which layers are made decides the random numbers of their weights.
        self.resample, self.channels = Resample(fir_kernel), [width * m for m in multipliers]
        layers = Layers(
            noise, dropout, skip_rescale, init_scale, heads, groups, self.resample, residual, resample_with_conv
        )
        sides = [math.ceil(max(shape[1:]) / 2**level) for level in range(len(multipliers))]
        attends = [side in tuple(attention) for side in sides]
        self.first = start(nn.Conv2d(shape[0], width, 3, padding=1))
        self.down, skips = self.way_down(layers, shape[0], width, attends)
        now = skips[-1]
        self.middle = nn.ModuleList([layers.block(now, now), layers.attention(now), layers.block(now, now)])
        self.up = self.way_up(layers, shape[0], skips, attends)
        if progressive != "output_skip":
            self.last_norm = group_norm(self.channels[0], groups)
            self.last = start(nn.Conv2d(self.channels[0], shape[0], 3, padding=1), init_scale)
        for module in self.modules():
            if isinstance(module, Down | Up) and module.conv is not None:
                start(module.conv)
        self.known = ConditionEmbedding(condition, noise) if condition else None

    def way_down(self, layers: Layers, image: int, now: int, attends: list[bool]) -> tuple[nn.ModuleList, list[int]]:
        """Returns the stages from the finest resolution to the coarsest, and the channels of all skips.

        The first skip comes from the first layer, the others from the stages.

        Arguments:
            image: the channels of the image.
            now: the channels after the first layer, and then after each layer.
            attends: for each level, whether it has attention.
        """
        skips, stages = [now], nn.ModuleList()
        for level, channels in enumerate(self.channels):
            stage = nn.ModuleDict({"blocks": nn.ModuleList(), "attention": nn.ModuleList()})
            for _ in range(self.blocks):
                stage["blocks"].append(layers.block(now, channels))
                now = channels
                if attends[level]:
                    stage["attention"].append(layers.attention(now))
                skips.append(now)
            if level < len(self.channels) - 1:
                stage["reduce"] = layers.halving(now)
                if self.progressive_input == "input_skip":
                    stage["join"] = Combine(image, now, self.combine)
                    now *= 2 if self.combine == "cat" else 1
                elif self.progressive_input == "residual":
                    stage["join"] = Down(image, now, self.resample, True)
                    image = now
                skips.append(now)
            stages.append(stage)
        return stages, skips

    def way_up(self, layers: Layers, image: int, skips: list[int], attends: list[bool]) -> nn.ModuleList:
        """Returns the stages from the coarsest resolution to the finest.

        Arguments:
            image: the channels of the image.
            skips: the channels of the skips, which are taken from the end.
            attends: for each level, whether it has attention.
        """
        now, output, stages = skips[-1], image, nn.ModuleList()
        for level in reversed(range(len(self.channels))):
            stage = nn.ModuleDict({"blocks": nn.ModuleList(), "attention": nn.ModuleList()})
            for i in range(self.blocks + 1):
                stage["blocks"].append(layers.block(now + skips.pop(), self.channels[level]))
                now = self.channels[level]
                if attends[level] and (i == self.blocks or self.attention_up == "all"):
                    stage["attention"].append(layers.attention(now))
            coarsest = level == len(self.channels) - 1
            if self.progressive == "output_skip":
                stage["norm"] = group_norm(now, self.groups)
                stage["image"] = start(nn.Conv2d(now, output, 3, padding=1), layers.scale)
            elif self.progressive == "residual" and coarsest:
                stage["norm"] = group_norm(now, self.groups)
                stage["image"] = start(nn.Conv2d(now, now, 3, padding=1))
                image = now
            elif self.progressive == "residual":
                stage["image"] = Up(image, now, self.resample, True)
                image = now
            if level:
                stage["enlarge"] = layers.doubling(now)
            stages.append(stage)
        return stages

    def parts(self) -> Iterator[nn.Module]:
        """Yields the modules that hold weights in some variant of the network, except the embedding of y.

        The order is that of the list of modules in the published code (:mod:`scoresde.models.published`): that of the
        forward pass, unless ``attention_up=all``.
        """
        if self.features is not None:
            yield self.features
            yield self.noise[0]
            yield self.noise[2]
        yield self.first
        for stage in self.down:
            for i, block in enumerate(stage["blocks"]):
                yield block
                if len(stage["attention"]):
                    yield stage["attention"][i]
            for name in ("reduce", "join"):
                if name in stage:
                    yield stage[name]
        yield from self.middle
        for stage in self.up:
            yield from stage["blocks"]
            yield from stage["attention"]
            for name in ("norm", "image", "enlarge"):
                if name in stage:
                    yield stage[name]
        if self.progressive != "output_skip":
            yield self.last_norm
            yield self.last

    def run(self, block: nn.Module, *inputs: Tensor | torch.Size | None) -> Tensor:
        """Returns a block's output, without storing its inner values in training with ``checkpointing``."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(block, block, *inputs)
        return block(*inputs)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        noise = None
        if self.features is not None:
            c = c[:1] if c.stride(0) == 0 else c  # one level expanded to the batch is embedded once
            noise = self.noise(self.features(c))
        if self.known is not None:  # without an embedding of the noise level, y alone
            noise = add_condition(self.known, x.new_zeros(1, 1) if noise is None else noise, y)
        noise = noise if noise is None else functional.silu(noise)

        image, h = x, self.first(x)
        skips = [h]
        for stage in self.down:
            for i, block in enumerate(stage["blocks"]):
                h = self.run(block, h, noise)
                if len(stage["attention"]):
                    h = self.run(stage["attention"][i], h)
                skips.append(h)
            if "reduce" in stage:
                h = self.run(stage["reduce"], h, noise) if self.residual == "biggan" else stage["reduce"](h)
                if self.progressive_input == "input_skip":
                    image = self.resample.down(image)
                    h = stage["join"](image, h)
                elif self.progressive_input == "residual":
                    image = h = (stage["join"](image) + h) * self.weight
                skips.append(h)

        h = self.run(self.middle[0], h, noise)
        h = self.run(self.middle[1], h)
        h = self.run(self.middle[2], h, noise)

        image = None
        for stage in self.up:
            late = len(stage["blocks"]) - len(stage["attention"])  # the first block with attention
            for i, block in enumerate(stage["blocks"]):
                h = self.run(block, torch.cat([h, skips.pop()], dim=1), noise)
                if i >= late:
                    h = self.run(stage["attention"][i - late], h)
            if "norm" in stage:
                adds = stage["image"](functional.silu(stage["norm"](h)))
                image = adds if image is None else self.resample.up(image, adds.shape[-2:]) + adds
            elif "image" in stage:
                image = h = (stage["image"](image, h.shape[-2:]) + h) * self.weight
            if "enlarge" in stage:
                size = skips[-1].shape[-2:]
                h = (
                    self.run(stage["enlarge"], h, noise, size)
                    if self.residual == "biggan"
                    else stage["enlarge"](h, size)
                )
        if self.progressive == "output_skip":
            return image
        return self.last(functional.silu(self.last_norm(h)))


def check(
    shape: tuple[int, ...],
    width: int,
    multipliers: list[int] | tuple[int, ...],
    blocks: int,
    heads: int,
    dropout: float,
    init_scale: float,
    data_range: float,
    groups: int | None,
) -> None:
    """Raises a ValueError for arguments with which no network can be made; :class:`Layers` checks the heads."""
    if len(shape) != 3:
        raise ValueError(
            f"model=ncsnpp takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
        )
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"`multipliers`={list(multipliers)} must be whole numbers from 1; type [1,2,2,2]")
    if width < 4 or width % 2:
        raise ValueError(f"`width`={width} must be even and at least 4; published: `width`=128")
    for key, value in (("blocks", blocks), ("heads", heads)):
        if value < 1:
            raise ValueError(f"`{key}`={value} must be at least 1")
    if groups is not None and groups < 1:
        raise ValueError(f"`groups`={groups} must be at least 1; type `groups`=null for min(C/4, 32)")
    if groups is not None and width % groups:
        step = math.lcm(groups, 2)  # the width is even
        raise ValueError(
            f"`groups`={groups} must divide `width`={width}: DDPM normalises 32 groups of channels whatever "
            f"its width. Type `width`={step * -(-width // step)}, or `groups`=null for min(C/4, 32) groups "
            f"of C channels, as NCSN++ has them"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout`={dropout} must lie in [0, 1); published: `dropout`=0.1")
    if init_scale < 0:
        raise ValueError(f"`init_scale`={init_scale} must not be negative; published: `init_scale`=0")
    if not data_range > 0:
        raise ValueError(f"`data_range`={data_range} must be positive; images here have `data_range`=2")
