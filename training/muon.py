r"""Muon: momentum SGD whose updates of matrices are orthogonalised.

Adam scales the step of every weight separately. The weights of a layer are one linear map, though, and the effect of a
step on the layer's output is measured by singular values. Let W be the weights of a layer as a matrix (out, in); for a
convolution a row holds all weights of one output channel. With the gradient G, the moment M, its decay mu and the
learning rate eta (Jordan et al. 2024; arXiv 2502.16982):

.. math:: M \leftarrow \mu M + (1 - \mu) G, \qquad U = \mu M + (1 - \mu) G, \qquad
          W \leftarrow W - 0.2\,\eta\,\sqrt{\max(out, in)}\; \mathrm{polar}(U),

where polar(U) = A B^T for the singular value decomposition U = A S B^T. It is computed approximately: five applications
of an odd polynomial to U/|U|, |U| the Frobenius norm, bring all singular values above 1/600 to between 0.68 and 1.21.
The root limits the root mean square of a step to about 0.2 eta for every shape, and the step comes near this if U has
full rank. Adam's steps are of this size at the same rate. With Muon the U-Net for MNIST was trained at the same
learning rate as with Adam; a small MLP needed three to ten times Adam's rate.
"""

import math
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

LEAST = 16
"""The least length of the shorter side of a matrix that Muon moves. Adam moves smaller matrices, such as the last layer
for images of few channels and the first layer for vectors of few columns.
"""

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""a, b, c of p(s) = a s + b s^3 + c s^5, chosen to be steep at 0 while p applied five times is about 1 (Jordan et al.
2024).
"""

STEPS = 5
"""How many times p is applied."""

SMALLEST = 1e-7
"""The |U| below which a step shrinks with U, so that a vanished gradient soon stops moving the weights."""


def is_matrix(weight: Tensor) -> bool:
    """Returns whether Muon moves a tensor: one that is a matrix with both sides at least ``LEAST`` long."""
    rows, columns = size_of(weight)
    return weight.ndim >= 2 and min(rows, columns) >= LEAST


def size_of(weight: Tensor) -> tuple[int, int]:
    """Returns the size (out, in) of a layer's weights as a matrix."""
    rows = len(weight) if weight.ndim else 1
    return rows, weight.numel() // max(1, rows)


def orthogonal(u: Tensor) -> Tensor:
    """Approximates the orthogonal factor of each matrix's polar decomposition, (N, R, C) to (N, R, C), float32.

    Each application of p multiplies U by p(s)/s, a polynomial of U U^T. These commute, so their product Q is
    accumulated in square matrices of the smaller side, and U occurs in two products only, U U^T and Q U. Rounding the
    squares of small singular values costs up to 2e-3 in the spectral norm; bfloat16, the usual precision for this,
    costs more. Zero matrices stay zero.
    """
    if u.shape[1] > u.shape[2]:
        return orthogonal(u.mT).mT
    u = u / u.flatten(1).norm(dim=1).clamp_min(SMALLEST)[:, None, None]
    gram = u @ u.mT
    factor = product = even_factor(gram)
    for _ in range(STEPS - 1):
        gram = factor @ gram @ factor  # U U^T of the U after this application
        factor = even_factor(gram)
        product = factor @ product
    return product @ u


def even_factor(gram: Tensor) -> Tensor:
    """Returns p(s)/s for each matrix U U^T with the eigenvalues s^2: a I + b U U^T + c (U U^T)^2."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


class Muon(Optimizer):
    """The optimiser of weights for which :func:`is_matrix` holds.

    Arguments:
        parameters: the weights.
        lr: eta.
        momentum: mu.

    Attributes:
        found_inf: 0 or 1 on the weights' device, or None. An update at which it is 1 changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Makes one update from the gradients; weights without a gradient are left as they are."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            for w in weights:
                if "momentum" not in self.state[w]:
                    self.state[w]["momentum"] = torch.zeros_like(w)
            moments = [self.state[w]["momentum"] for w in weights]
            gradients = [w.grad for w in weights]
            new = torch._foreach_lerp(moments, gradients, 1 - group["momentum"])  # M
            directions = torch._foreach_lerp(gradients, new, group["momentum"])  # U
            by_size: dict[tuple[int, int], list[int]] = {}  # matrices of one size are orthogonalised together
            for i, w in enumerate(weights):
                by_size.setdefault(size_of(w), []).append(i)
            with exact_products():
                for size, members in by_size.items():
                    steps = orthogonal(torch.stack([directions[i].reshape(size).float() for i in members]))
                    steps *= -0.2 * group["lr"] * math.sqrt(max(size))
                    for i, step in zip(members, steps, strict=True):
                        self.move(weights[i], step.view(weights[i].shape))
            for m, n in zip(moments, new, strict=True):
                m.copy_(n if self.found_inf is None else torch.where(self.found_inf > 0, m, n))

    def move(self, weight: Tensor, step: Tensor) -> None:
        """Adds a step to a weight, unless ``found_inf`` forbids it."""
        if self.found_inf is not None:
            step = torch.where(self.found_inf > 0, 0.0, step)
        weight.add_(step)


@contextmanager
def exact_products():
    """A context without TF32 in matrix products: the polynomial amplifies rounding errors 10^5 times."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
