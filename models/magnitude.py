r"""Layers that preserve magnitudes: if the input has mean square one, so has the output in expectation.

The layers of EDM2 (Karras et al., arXiv 2312.02696):

* a learnt map divides the n weights w of each output by their length, :math:`w/\|w\|`. In training the stored weights
  are scaled to length :math:`\sqrt{n}` as well, so that the learning rate has the same effect throughout;
* :math:`\text{silu}(x)/0.596`, whose mean square is one for x ~ N(0, 1);
* a blend :math:`\frac{(1 - t)\,a + t\,b}{\sqrt{(1 - t)^2 + t^2}}` instead of a sum;
* a concatenation of channels in which each part has a set share of the mean square;
* a division of a pixel's channels by their root mean square.

These layers have no biases, and :mod:`scoresde.models.adm` uses them without group normalisation.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib.products import row_product


def normalised(x: Tensor, dim: list[int], eps: float = 1e-4) -> Tensor:
    """Divides x by its root mean square over some dimensions, plus ``eps``."""
    size = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    count = math.prod(x.shape[each] for each in dim)
    return x / (eps + size / math.sqrt(count))


def silu(x: Tensor) -> Tensor:
    """Returns SiLU divided by the root of its mean square under N(0, 1)."""
    return functional.silu(x) / 0.596


def blend(a: Tensor, b: Tensor, t: float = 0.3) -> Tensor:
    """Returns (1 - t) a + t b, scaled so that its mean square is one if those of a and b are and E[ab] = 0."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def concatenated(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Concatenates the channels of a (B, N, H, W) and b (B, M, H, W), weighted 1 - t and t, at mean square one."""
    n, m = a.shape[1], b.shape[1]
    size = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (size * (1 - t) / math.sqrt(n)), b * (size * t / math.sqrt(m))], dim=1)


class Map(nn.Module):
    """A convolution, or for ``kernel=0`` a linear map of vectors, that preserves magnitudes.

    Arguments:
        inside, outside: the channels, or the lengths of the vectors, of the input and of the output.
        kernel: the side of the kernel in pixels, odd; 0 for a map of vectors.
    """

    def __init__(self, inside: int, outside: int, kernel: int = 0):
        super().__init__()
        shape = (outside, inside, kernel, kernel) if kernel else (outside, inside)
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """Maps x (B, inside, H, W) or (B, inside), and multiplies the result by ``gain``."""
        inner = list(range(1, self.weight.ndim))  # the dimensions of the weights of one output
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.weight.copy_(normalised(self.weight, inner))
        weight = normalised(self.weight, inner) * (gain / math.sqrt(self.weight[0].numel()))
        if self.weight.ndim == 2:
            return row_product(x, weight.to(x.dtype))
        return functional.conv2d(x, weight.to(x.dtype), padding=self.weight.shape[-1] // 2)
