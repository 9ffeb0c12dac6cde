r"""Muon: momentum whose matrices are made orthogonal before they move the weights.

Adam gives every weight a step of its own; a layer's weights, though, are one linear map, and what its step does to the
layer's output is measured by singular values. For the weights W of a layer as a matrix (out, in), a convolution's with
all that one output sums as its row, with the gradient G and momentum mu (Jordan et al. 2024; arXiv 2502.16982):

.. math:: M \leftarrow \mu M + (1 - \mu) G, \qquad U = \mu M + (1 - \mu) G, \qquad
          W \leftarrow W - 0.2\,\eta\,\sqrt{\max(out, in)}\; \mathrm{polar}(U),

where polar(U) = A B^T of U = A S B^T, nearly: five steps of an odd polynomial bring all singular values above a
thousandth of |U| to between 0.68 and 1.21. The root makes the step's root mean square at most about 0.2 eta, whatever
the shape, and near it where no direction is missing from U: Adam's is of that size at the same rate. The U-Net
of MNIST was trained at one rate for the matrices and, by Adam, for the rest; a small MLP wanted three to ten times it.
"""

import math
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LEAST = 16
"""A matrix with a side below it is Adam's: the last layer of a picture of few channels, the first one of points."""

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""a, b, c of p(s) = a s + b s^3 + c s^5, steepest at 0 with p^5 between 0.7 and 1.2 (Jordan et al. 2024)."""

STEPS = 5

SMALLEST = 1e-7
"""|U| below which a step shrinks with U: a gradient that is gone moves nothing for long."""


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon moves it: at least two dimensions, and both sides of the matrix at least ``LEAST`` long."""
    rows, columns = size_of(weight)
    return weight.ndim >= 2 and min(rows, columns) >= LEAST


def size_of(weight: Tensor) -> tuple[int, int]:
    """A layer's weights as a matrix: its outputs, and all that one of them sums."""
    rows = len(weight) if weight.ndim else 1
    return rows, weight.numel() // max(1, rows)


def orthogonal(u: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each matrix's polar decomposition, (N, R, C) to (N, R, C), float32.

    The polynomials of U U^T commute, so that their product Q is followed in the smaller side's square matrices, and
    U itself is met twice: for U U^T, and for Q U. Squares of small singular values are rounded, which costs up to 2e-3
    in the spectral norm; bfloat16, in which this is usually computed, costs more. Zeros stay zeros.
    """
    if u.shape[1] > u.shape[2]:
        return orthogonal(u.mT).mT
    u = u / u.flatten(1).norm(dim=1).clamp_min(SMALLEST)[:, None, None]
    gram = u @ u.mT
    factor = product = even(gram)
    for _ in range(STEPS - 1):
        gram = factor @ gram @ factor
        factor = even(gram)
        product = factor @ product
    return product @ u


def even(gram: Tensor) -> Tensor:
    """p(s)/s of each matrix U U^T, a I + b U U^T + c (U U^T)^2."""
    a, b, c = COEFFICIENTS
    found = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    found.diagonal(dim1=1, dim2=2).add_(a)
    return found


class Muon(Optimizer):
    """Moves matrices, and anything of which :func:`is_matrix` holds.

    Arguments:
        parameters: the weights.
        lr: eta.
        momentum: mu.

    Attributes:
        found_inf: where it is set, a number on the weights' device: an update at which it is not 0 changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            for w in weights:
                if "momentum" not in self.state[w]:
                    self.state[w]["momentum"] = torch.zeros_like(w)
            moments = [self.state[w]["momentum"] for w in weights]
            gradients = [w.grad for w in weights]
            new = torch._foreach_lerp(moments, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, new, group["momentum"])
            together: dict[tuple[int, int], list[int]] = {}  # matrices of one size are orthogonalised at once
            for i, w in enumerate(weights):
                together.setdefault(size_of(w), []).append(i)
            with exact_products():
                for size, members in together.items():
                    steps = orthogonal(torch.stack([ahead[i].reshape(size).float() for i in members]))
                    steps *= -0.2 * group["lr"] * math.sqrt(max(size))
                    for i, step in zip(members, steps, strict=True):
                        self.move(weights[i], step.view(weights[i].shape))
            for m, n in zip(moments, new, strict=True):
                m.copy_(n if self.found_inf is None else torch.where(self.found_inf > 0, m, n))

    def move(self, weight: Tensor, step: Tensor) -> None:
        if self.found_inf is not None:
            step = torch.where(self.found_inf > 0, 0.0, step)
        weight.add_(step)


@contextmanager
def exact_products():
    """Within it no matrix product is rounded to TF32: five steps of the polynomial enlarge its errors 10^5 times."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
