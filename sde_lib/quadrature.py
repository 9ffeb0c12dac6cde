"""Gauss-Legendre quadrature on the unit interval."""

import numpy as np
import torch
from torch import Tensor


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights in float64, shape (count,): sum_i w_i f(u_i) is the integral of f over [0, 1],
    exact for polynomials f of degree up to 2 count - 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(0.5 + 0.5 * nodes), torch.from_numpy(0.5 * weights)
