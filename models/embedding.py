r"""Fourier features of numbers and vectors, which resolve finer differences than the raw values.

.. math:: \gamma(u) = [\cos(2\pi W u),\ \sin(2\pi W u)]

If the rows of W are drawn from a Gaussian, these are the random Fourier features of Tancik et al. (arXiv 2006.10739).
With frequencies in geometric progression they are the sinusoidal embedding of a step or a noise level (arXiv
2006.11239).

The networks take c = log(sigma/alpha)/4 and not a step number. The step embedding of DDPM,

.. math:: [\cos(w_k n),\ \sin(w_k n)], \qquad w_k = 10000^{-k/(K - 1)}, \quad k = 0 \ldots K - 1

for steps n = 0 ... 1000, is therefore applied to n = 250 (c + 2.5) (``embedding=steps``). For the noise levels of the
usual SDEs, and of a chain of 1000 steps, this n lies between 0 and 1000.
"""

import math

import torch
from torch import Tensor, nn

from scoresde.sde_lib.products import row_product

from .clock import Clock
from .linear import Linear


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of c = log(sigma/alpha)/4 and a linear layer with SiLU: (B,) to (B, width).

    A level c that was expanded to the batch (stride 0) is embedded once, and the result is (1, width).

    The c of the usual SDEs lie in [-2.3, 1.3], and the periods of the ``smooth`` features lie between 16 and 2, so that
    the fastest one goes through less than two periods. Faster features do not improve the network, and a network that
    changes faster with the noise than the data require costs an adaptive ODE solver 1.6 to 1.8 times as many
    evaluations (docs/decisions.md).

    Arguments:
        width: the length of the result.
        kind: ``smooth`` for these features, ``steps`` for DDPM's embedding of a step; see the module's docstring.
        features: the number of cosines and sines together, even.
    """

    def __init__(self, width: int, kind: str = "smooth", features: int = 32):
        super().__init__()
        if kind not in ("smooth", "steps"):
            raise ValueError(f"`embedding`={kind} must be smooth or steps")
        # Saved with the weights, which are of use with these frequencies only.
        smooth = 2 * math.pi * torch.logspace(-4, -1, features // 2, base=2.0)
        self.register_buffer("frequencies", smooth if kind == "smooth" else 250 * step_frequencies(features // 2))
        self.start = 0.0 if kind == "smooth" else -2.5
        self.mix = Linear(features, width)

    def forward(self, c: Tensor) -> Tensor:
        if c.stride(0) == 0:
            c = c[:1]
        angle = (c - self.start if self.start else c)[:, None] * self.frequencies
        return nn.functional.silu(self.mix(torch.cat([angle.cos(), angle.sin()], dim=1)))


class Positional(nn.Module):
    """DDPM's embedding of a step number n, sines first: (B,) to (B, width) (arXiv 2006.11239).

    Arguments:
        width: the length of the result, even.
        clock: the step number of a noise level; None for n = 250 (c + 2.5).
    """

    def __init__(self, width: int, clock: Clock | None = None):
        super().__init__()
        self.clock = clock
        frequencies = torch.logspace(0, -4, width // 2, dtype=torch.float64)  # step_frequencies in float64
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        n = 250 * (c + 2.5) if self.clock is None else self.clock(c)
        angle = n[:, None] * self.frequencies.to(n.dtype)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class RandomFourier(nn.Module):
    r"""Random Fourier features of log sigma, sines first: (B,) to (B, 2 width) (arXiv 2011.13456, appendix H.1).

    .. math:: [\sin(2\pi W \log\sigma),\ \cos(2\pi W \log\sigma)], \qquad W \sim N(0, scale^2 I)

    where sigma stands for sigma/alpha in units of the data's range.

    Arguments:
        width: the number of frequencies.
        scale: the std of the frequencies.
        data_range: the width of the data's range in model units.
    """

    def __init__(self, width: int, scale: float, data_range: float = 2.0):
        super().__init__()
        self.shift = math.log(data_range)
        # A buffer: drawn once and saved with the weights, but not trained.
        self.register_buffer("frequencies", scale * torch.randn(width))

    def forward(self, c: Tensor) -> Tensor:
        angle = (4 * c - self.shift)[:, None] * (2 * math.pi * self.frequencies)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def step_frequencies(count: int) -> Tensor:
    """Returns w_k = 10000^{-k/(K - 1)}, k = 0 ... K - 1, shape (K,), K at least 2."""
    return torch.logspace(0, -4, count)


class FourierFeatures(nn.Module):
    """A vector and its random Fourier features: (B, D) to (B, D + 2 count).

    Arguments:
        dim: the length D of the vector.
        count: the number of random directions.
        scale: the std of a direction's frequency along a unit vector, in periods per unit of the input.
    """

    def __init__(self, dim: int, count: int, scale: float):
        super().__init__()
        self.width = dim + 2 * count
        # A buffer: drawn once and saved with the weights, but not trained.
        self.register_buffer("directions", 2 * math.pi * scale * torch.randn(dim, count))

    def forward(self, x: Tensor) -> Tensor:
        angle = row_product(x, self.directions.T)
        return torch.cat([x, angle.cos(), angle.sin()], dim=1)


class PixelFeatures(nn.Module):
    r"""An image and Fourier features of its values: (B, C, H, W) to (B, C (1 + 2n), H, W).

    .. math:: e^{-(2\pi f k)^2/2}\,[\cos(2\pi f u/\gamma),\ \sin(2\pi f u/\gamma)], \qquad k = \sigma/\alpha = e^{4c}

    for n frequencies f, in periods per model unit. u = c_in x is the network's input, and gamma is the value of c_in
    where there is hardly any noise. Values of 256 greys lie on a grid. If the noise is smaller than a grey, the
    distance of a value from the grid is all that distinguishes noise from data, and a convolution would have to amplify
    x some hundred times to resolve this distance. Features with f of one period per grey show it (Kingma et al., arXiv
    2107.00630, section 3.4). The factor in front is the share of a feature that remains on average under noise of std
    k, so that the network does not see features that are pure noise. Features cannot distinguish values that
    are whole periods of every frequency apart, and a network that normalises its channels hardly resolves x itself
    so finely: combine fast frequencies with slow ones.

    Arguments:
        frequencies: f, in (0, 1e6]; an empty list leaves the image unchanged.
        unit: gamma.
    """

    def __init__(self, frequencies: list[float] | tuple[float, ...] = (), unit: float = 1.0):
        super().__init__()
        if not all(0 < f <= 1e6 for f in frequencies):
            raise ValueError(f"`pixel_features`={list(frequencies)} must lie in (0, 1e6]; type `pixel_features`=auto")
        if not 0 < unit < math.inf:
            raise ValueError(f"`pixel_unit`={unit} must be positive and finite; type `pixel_unit`=auto")
        self.count, self.unit = 1 + 2 * len(frequencies), unit
        # Not saved, since the configuration contains them.
        turns = 2 * math.pi * torch.tensor(list(frequencies), dtype=torch.float64)[:, None, None, None]
        self.register_buffer("turns", turns.float(), persistent=False)

    def forward(self, u: Tensor, c: Tensor) -> Tensor:
        """Maps u (B, C, H, W) and the noise level c (B,) to (B, C (1 + 2n), H, W)."""
        if self.count == 1:
            return u
        k = torch.exp(4 * c)[:, None, None, None, None]
        factor = torch.exp(-0.5 * (self.turns * k).square())  # (B, n, 1, 1, 1)
        angle = self.turns * (u / self.unit)[:, None]  # (B, n, C, H, W)
        return torch.cat([u, (factor * angle.cos()).flatten(1, 2), (factor * angle.sin()).flatten(1, 2)], dim=1)
