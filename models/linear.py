"""The linear layers of our networks, whose result for a sample does not depend on the number of samples."""

import torch
from torch import Tensor, nn

from scoresde.sde_lib.products import ROWS, row_product


class Linear(nn.Linear):
    """Torch's linear layer; on a CPU a row's result is bitwise the same whatever the number of rows
    (:mod:`scoresde.sde_lib.products`).
    """

    def forward(self, x: Tensor) -> Tensor:
        return row_product(x, self.weight, self.bias)


class Pixelwise(nn.Conv2d):
    """Torch's convolution with a kernel of 1 x 1, a linear layer of each pixel; on a CPU an image's result is bitwise
    the same whatever the number of images. A training, whose batches are of one size, is not slowed down.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.device.type != "cpu":
            return super().forward(x)
        count, x = len(x), x.contiguous()  # the layout in memory decides the kernel too
        if count < ROWS:
            x = torch.cat([x, x.new_zeros(ROWS - count, *x.shape[1:])])
        return super().forward(x)[:count]
