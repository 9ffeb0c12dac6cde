r"""Halving and doubling feature maps of any height and width.

A map of h x w pixels is halved to ceil(h/2) x ceil(w/2), where an odd last row or column is first repeated. Doubled
maps are cropped to the requested size. With a filter k of m taps and sum one in each direction,

.. math::
    \text{down:}\quad y_i = \sum_n k_{2i + \lfloor m/2\rfloor - n}\,x_n, \qquad
    \text{up:}\quad y_i = 2\sum_n k_{i + m - 2 - \lfloor (m-1)/2\rfloor - 2n}\,x_n

with zeros beyond the border: the FIR filters of StyleGAN2 (Karras et al., arXiv 1912.04958) as NCSN++ places them
(arXiv 2011.13456, appendix H.1), k = [1, 3, 3, 1]/8. Without a filter halving takes means of four pixels and doubling
repeats the nearest pixel. The filter is a grouped convolution, which works in every precision and has derivatives of
any order.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def even(x: Tensor) -> Tensor:
    """Repeats the last row of x (B, C, H, W) if H is odd, and the last column if W is odd."""
    height, width = x.shape[-2:]
    return functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else x


def filter_of(taps: list[float] | tuple[float, ...]) -> Tensor:
    """Returns the filter in both directions, (m, m) with sum one, from its m taps in one direction."""
    k = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(k, k) / k.sum().square()


class Resample(nn.Module):
    """Halves and doubles feature maps, with a FIR filter or without.

    Arguments:
        taps: the taps of the filter, at least two, which are divided by their sum; None for means and nearest
            neighbours.
    """

    def __init__(self, taps: list[float] | tuple[float, ...] | None):
        super().__init__()
        if taps is not None and (len(taps) < 2 or sum(taps) == 0):
            raise ValueError(f"`fir_kernel`={list(taps)} must be two taps or more of a sum that is not 0")
        self.taps = len(taps) if taps is not None else 0
        # Not saved, since the configuration contains it.
        self.register_buffer("filter", None if taps is None else filter_of(taps), persistent=False)

    def grouped(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Returns ``gain`` times the filter, once for each channel of x (B, C, H, W): (C, 1, m, m)."""
        return (gain * self.filter.to(x.dtype)).expand(x.shape[1], 1, self.taps, self.taps)

    def smooth(self, x: Tensor, before: int, after: int, stride: int = 1, gain: float = 1.0) -> Tensor:
        """Convolves x (B, C, H, W) with ``gain`` times the filter, padded by zeros.

        Arguments:
            before: the number of zeros at the top and at the left.
            after: the number of zeros at the bottom and at the right.
        """
        padding = before
        if before != after:
            x, padding = functional.pad(x, (before, after, before, after)), 0
        weight = self.grouped(x, gain).flip(2, 3)  # conv2d correlates
        return functional.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])

    def down(self, x: Tensor) -> Tensor:
        """Halves (B, C, H, W) to (B, C, ceil(H/2), ceil(W/2))."""
        x = even(x)
        if not self.taps:
            return functional.avg_pool2d(x, 2)
        return self.smooth(x, (self.taps - 1) // 2, (self.taps - 2) // 2, stride=2)

    def up(self, x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """Doubles (B, C, h, w) to ``size`` (H, W), where h = ceil(H/2) and w = ceil(W/2)."""
        if self.taps:
            padding = self.taps - 2 - (self.taps - 1) // 2
            weight = self.grouped(x, gain=4.0)
            x = functional.conv_transpose2d(x, weight, stride=2, padding=padding, groups=x.shape[1])
        else:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return x[..., : size[0], : size[1]]


class Down(nn.Module):
    """Halves a feature map; if ``learnt``, by a 3 x 3 convolution with stride 2, after the filter if there is one.

    Arguments:
        inside, outside: the channels of the input and of the output, which are equal unless ``learnt``.
    """

    def __init__(self, inside: int, outside: int, resample: Resample, learnt: bool):
        super().__init__()
        self.resample = resample
        self.conv = nn.Conv2d(inside, outside, 3, stride=2) if learnt else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return self.resample.down(x)
        x = even(x)
        if not self.resample.taps:
            return self.conv(functional.pad(x, (0, 1, 0, 1)))
        # zeros on both sides together: m - 2 for halving with the filter, 3 - 1 for the convolution
        padding = self.resample.taps
        return self.conv(self.resample.smooth(x, (padding + 1) // 2, padding // 2))


class Up(nn.Module):
    """Doubles a feature map; if ``learnt``, with a 3 x 3 convolution.

    Without a filter the convolution follows the doubling by nearest neighbours. With a filter the convolution comes
    first, and acts on the pixels with zeros between them.

    Arguments:
        inside, outside: the channels of the input and of the output, which are equal unless ``learnt``.
    """

    def __init__(self, inside: int, outside: int, resample: Resample, learnt: bool):
        super().__init__()
        self.resample = resample
        self.conv = nn.Conv2d(inside, outside, 3, padding=1) if learnt else None

    def forward(self, x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        if self.conv is None:
            return self.resample.up(x, size)
        if not self.resample.taps:
            return self.conv(self.resample.up(x, size))
        # On a grid with zeros between the pixels, correlation is the transposed convolution with the flipped weight.
        weight = self.conv.weight.flip(2, 3).transpose(0, 1)
        x = functional.conv_transpose2d(x, weight, stride=2)  # 2h + 1 rows
        padding = self.resample.taps - 4  # m - 2 zeros on both sides together leave 2h rows
        x = self.resample.smooth(x, (padding + 1) // 2 + 1, padding // 2 + 1, gain=4.0)
        return x[..., : size[0], : size[1]] + self.conv.bias[:, None, None]
