"""Products of the rows of a batch with a matrix, which do not depend on the other rows.

Matrix libraries choose their kernel by the number of rows, and kernels round in other orders: the last digits of a
sample's score would depend on the size of its batch. A solver that chooses steps by an error estimate may then take
another number of steps, and random probes meet other steps. On a CPU, whole groups of :data:`ROWS` rows meet one
kernel, so the rows of a smaller batch are filled up with zeros.
"""

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 16
"""The number of rows that kernels take at once, of which the number of rows becomes a multiple."""


def row_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x W^T + b for x (..., n), W (m, n) and b (m,), (..., m): on a CPU bitwise the same for a row whatever the
    number of rows.
    """
    count = x.shape[:-1].numel()
    missing = -count % ROWS
    if not missing or x.device.type != "cpu":
        return functional.linear(x, weight, bias)
    whole = torch.cat([x.reshape(count, x.shape[-1]), x.new_zeros(missing, x.shape[-1])])
    return functional.linear(whole, weight, bias)[:count].reshape(*x.shape[:-1], len(weight))
