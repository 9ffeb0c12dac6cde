r"""The network of NCSN: a RefineNet with normalisations that depend on the noise level (arXiv 1907.05600, appendix A).

It has four stages of residual blocks, of which the last two are dilated instead of halved, and four refinement blocks
(Lin et al., arXiv 1611.06612) that bring the coarse features back to the full resolution. All use **conditional
InstanceNorm++**,

.. math::
    z_k = \gamma_k\,\frac{x_k - \mu_k}{s_k} + \beta_k + \alpha_k\,\frac{\mu_k - m}{v},

where mu_k and s_k are the mean and the std of channel k over its pixels, and m and v are the mean and the std of the
mu_k over the channels. The last term restores the means of the channels, which instance normalisation removes. gamma,
beta and alpha depend on the noise level. The paper looks them up by the number of the level; here they are linear in
the features of c_noise, so that one network serves any set of levels and any SDE.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .embedding import NoiseEmbedding
from .given import ConditionEmbedding, add_condition
from .linear import Linear, Pixelwise

WIDTH = 64  # the length of the noise features


class InstanceNormPlus(nn.Module):
    """Conditional InstanceNorm++ of C channels, with noise features (1 or B, WIDTH)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.terms = Linear(WIDTH, 3 * channels)
        nn.init.normal_(self.terms.weight, std=0.02)
        with torch.no_grad():
            self.terms.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels), torch.ones(channels)]))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        gamma, beta, alpha = (term[..., None, None] for term in self.terms(noise).chunk(3, dim=1))
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        variance_of_means, mean_of_means = torch.var_mean(mean, dim=1, keepdim=True, correction=0)
        means = (mean - mean_of_means) * torch.rsqrt(variance_of_means + 1e-5)
        return gamma * (x - mean) * torch.rsqrt(variance + 1e-5) + (beta + alpha * means)


class Unit(nn.Module):
    """Normalisation, ELU and a 3 x 3 convolution."""

    def __init__(self, inside: int, outside: int, dilation: int = 1):
        super().__init__()
        self.norm = InstanceNormPlus(inside)
        self.convolution = nn.Conv2d(inside, outside, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.convolution(F.elu(self.norm(x, noise)))


class Residual(nn.Module):
    """x + two units, at half the resolution if ``halve``, or with dilated convolutions. Where channels, resolution or
    dilation change, x passes a 1 x 1 convolution.
    """

    def __init__(self, inside: int, outside: int, dilation: int = 1, halve: bool = False):
        super().__init__()
        self.first, self.second = Unit(inside, inside, dilation), Unit(inside, outside, dilation)
        self.halve, plain = halve, inside == outside and not halve and dilation == 1
        self.shortcut = nn.Identity() if plain else Pixelwise(inside, outside, 1)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h, x = self.second(self.first(x, noise), noise), self.shortcut(x)
        if self.halve:  # odd sizes keep their last row and column
            h, x = (F.avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False) for each in (h, x))
        return x + h


class Adapt(nn.Module):
    """``blocks`` residual branches of ``depth`` units each: the RCU of RefineNet."""

    def __init__(self, channels: int, blocks: int, depth: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(Unit(channels, channels) for _ in range(depth)) for _ in range(blocks)
        )

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        for block in self.blocks:
            h = x
            for unit in block:
                h = unit(h, noise)
            x = x + h
        return x


class Refine(nn.Module):
    """A refinement block: adapts its inputs, adds them at one resolution, applies chained pooling and adapts again.

    Arguments:
        inputs: the channels of each input: the features of a stage, and those of the refinement block before, if any.
        channels: the channels of the output.
        last: whether the last adaption has three residual branches, as in the last block, and not one.
    """

    def __init__(self, inputs: tuple[int, ...], channels: int, last: bool = False):
        super().__init__()
        self.adapt = nn.ModuleList(Adapt(each, 2, 2) for each in inputs)
        self.fuse = nn.ModuleList(Unit(each, channels) for each in inputs) if len(inputs) > 1 else None
        self.pools = nn.ModuleList(
            nn.ModuleList((InstanceNormPlus(channels), nn.Conv2d(channels, channels, 3, padding=1))) for _ in range(2)
        )
        self.output = Adapt(channels, 3 if last else 1, 2)

    def forward(self, inputs: list[Tensor], size: tuple[int, int], noise: Tensor) -> Tensor:
        """Maps the inputs (B, C, h, w) to (B, channels, *size); ``noise`` are the noise features (1 or B, WIDTH)."""
        adapted = [adapt(x, noise) for adapt, x in zip(self.adapt, inputs, strict=True)]
        if self.fuse is not None:
            adapted = [
                F.interpolate(unit(x, noise), size=size, mode="bilinear", align_corners=True)
                for unit, x in zip(self.fuse, adapted, strict=True)
            ]
        x = F.elu(sum(adapted[1:], adapted[0]))
        path = x
        for norm, convolution in self.pools:
            path = convolution(F.avg_pool2d(norm(path, noise), 5, stride=1, padding=2, count_include_pad=False))
            x = x + path
        return self.output(x, noise)


class RefineNet(nn.Module):
    """F(x, c) for images of any height, width and number of channels (arXiv 1907.05600, appendix A).

    Arguments:
        shape: the shape (C, H, W) of one image.
        channels: the channels of the first stage; the others have twice as many. Published: 128.
        embedding: the embedding of the noise level, ``smooth`` or ``steps``; see :mod:`scoresde.models.embedding`.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(self, shape: tuple[int, ...], channels: int = 128, embedding: str = "smooth", condition: int = 0):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"model=ncsn takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
            )
        if channels < 1:
            raise ValueError(f"`channels`={channels} must be at least 1; published: `channels`=128")
        one, two = channels, 2 * channels  # the channels of the first stage and of the others
        self.noise = NoiseEmbedding(WIDTH, embedding)
        self.first = nn.Conv2d(shape[0], one, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.ModuleList(stage)
            for stage in (
                (Residual(one, one), Residual(one, one)),
                (Residual(one, two, halve=True), Residual(two, two)),
                (Residual(two, two, dilation=2), Residual(two, two, dilation=2)),
                (Residual(two, two, dilation=4), Residual(two, two, dilation=4)),
            )
        )
        self.refine = nn.ModuleList(
            (Refine((two,), two), Refine((two, two), two), Refine((two, two), one), Refine((one, one), one, last=True))
        )
        self.norm = InstanceNormPlus(one)
        self.last = nn.Conv2d(one, shape[0], 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.condition = condition
        self.known = ConditionEmbedding(condition, WIDTH) if condition else None

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        noise, h, features = add_condition(self.known, self.noise(c), y), self.first(x), []
        for stage in self.stages:
            for block in stage:
                h = block(h, noise)
            features.append(h)
        coarser: list[Tensor] = []  # the output of the refinement block before, if any
        for refine, feature in zip(self.refine, reversed(features), strict=True):
            coarser = [refine([feature, *coarser], feature.shape[2:], noise)]
        return self.last(F.elu(self.norm(coarser[0], noise)))
