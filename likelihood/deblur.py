r"""The density of data from that of their blur, given the score and its Jacobian at one noise level.

At the noise level k = sigma/alpha the blurred data have the density q = p_0 * N(0, k^2 I). With tau = k^2, l = log q, g
its gradient and H its Hessian, l obeys the heat equation in the form

.. math:: \partial_\tau l = \tfrac12(\mathrm{tr}\,H + \|g\|^2),

which is solved backwards to tau = 0. One Euler step of it, -tau/2 (tr H + |g|^2), is the first term of an asymptotic
series, and wrong where data vary on scales s below k: a Gaussian direction of variance s^2 has tau H = -lambda with
lambda = k^2/(s^2 + k^2), and needs -1/2 log(1 - lambda) in place of lambda/2. So the step uses the Gaussian that
matches l at x to second order (Laplace's approximation), whose deblurring is exact:

.. math::
    \log p_0(x) \approx l(x) + G, \qquad
    G = -\tfrac12\log\det(I + \tau H) - \tfrac\tau2\,g^\top (I + \tau H)^{-1} g .

Its first order in tau is the heat step; of the second order, tau^2/8 (2 |H|^2 + 4 g'Hg + Laplace^2 l + 4 g . grad
Laplace l), it has the first two terms, and the other two vanish for a Gaussian.

* **The exact trace.** Up to D = ``DENSE`` we compute all of H, and G from it. The eigenvalues of I + tau H are
  1 - lambda, positive for every density that is a blur; those below ``FLOOR``, as of data that do not vary in some
  direction or of a network that is no gradient, are raised to ``FLOOR``. For larger D the log-determinant is taken to
  second order in tau H, from the rows of H, and g'(I + tau H)^{-1} g by Lanczos' method.
* **Random probes.** For random v, v'f(I + tau H)v is computed from m products with H, by Lanczos' method. With the
  Gaussian of the data's moments as control variate, whose H_G has a closed form, G is that of the Gaussian plus the
  difference of the estimates from m products with H and with H_G: exact for Gaussian data. The difference between m and
  m - 1 products estimates the error of m products.

**The error** is estimated from a second level, tau_2 = 2 tau: l(tau_2) - l(tau) is an integral of the heat equation at
x, two more evaluations, and

.. math:: d = \int_\tau^{2\tau}\tfrac12(\mathrm{tr}\,H + \|g\|^2)\,d\tau' + G(2\tau) - G(\tau)

is the difference of the answers from both levels. Where the terms of order tau^2 that G lacks dominate, the error at
tau is d/3; the reported error is d. d is also large for a network that is no gradient, or has not learnt the scores at
these two levels. d does not show detail that both levels hide: where lambda exceeds 1/2 along some direction, data have
detail below k, and all of G but its first order assumes that this detail is Gaussian.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib.divergence import Pull, inner
from scoresde.sde_lib.products import row_product
from scoresde.sde_lib.quadrature import gauss_legendre

from .moments import Moments

FLOOR = 1e-5  # of 1 - lambda: a detail of 0.3 % of k
DENSE = 512  # dimensions up to which the exact trace keeps the whole Jacobian
PRODUCTS = 4  # m in the module docstring


@dataclass(frozen=True)
class Deblurring:
    """The term that deblurring adds to log q at some points.

    Attributes:
        estimates: estimates of G in nats, (n, B), whose mean over n is the result.
        remainder: the estimated error of using few products or few orders, in nats, (B,); 0 for the exact trace up to
            D = ``DENSE``.
        largest: the largest eigenvalue lambda that was found, (B,): from 0.5 on, data have detail below k.
        heat: the first order of G, one Euler step of the heat equation, (B,).
    """

    estimates: Tensor
    remainder: Tensor
    largest: Tensor
    heat: Tensor


def deblur(tau: float, gradient: Tensor, pull: Pull, vectors: Tensor | None, reference: Moments | None) -> Deblurring:
    """Returns G at points where log q has the gradient (B, D) and the Hessian H, with v'H = pull(v) for v (m, B, D).

    Arguments:
        tau: k^2; like all other arguments in the coordinates of clean data.
        vectors: random vectors (n, B, D) with E[vv'] = I; None for the exact trace.
        reference: the Gaussian of the data's moments, for the control variate; None for no control variate.
    """
    if vectors is not None:
        return by_products(tau, gradient, pull, vectors, reference)
    if gradient.shape[1] <= DENSE:
        return by_eigenvalues(tau, gradient, pull)
    return by_two_orders(tau, gradient, pull)


def by_eigenvalues(tau: float, gradient: Tensor, pull: Pull) -> Deblurring:
    """Returns G from the whole Hessian, differentiable wherever no eigenvalue is raised to ``FLOOR``."""
    count, dim = gradient.shape
    eye = torch.eye(dim, dtype=gradient.dtype, device=gradient.device)
    rows = pull(eye[:, None].expand(-1, count, -1)).transpose(0, 1)
    shrunk = eye + 0.5 * tau * (rows + rows.mT)
    with torch.no_grad():
        values, axes = torch.linalg.eigh(shrunk)
        raised = torch.einsum("bij,bj,bkj->bik", axes, values.clamp_min(FLOOR) - values, axes)
    shrunk = shrunk + raised
    quadratic = (gradient * torch.linalg.solve(shrunk, gradient)).sum(1)
    G = -0.5 * (torch.linalg.slogdet(shrunk).logabsdet + tau * quadratic)
    heat = -0.5 * tau * (rows.diagonal(dim1=1, dim2=2).sum(1) + gradient.square().sum(1))
    return Deblurring(G[None], torch.zeros_like(G), 1 - values[:, 0], heat.detach())


def by_two_orders(tau: float, gradient: Tensor, pull: Pull) -> Deblurring:
    """Returns G with its log-determinant to second order, from all rows of H, without storing them."""
    count, dim = gradient.shape
    # with A = -tau H, log det(I - A) = -tr A - tr A^2 / 2 - ...
    first = second = gradient.new_zeros(count)
    for start in range(0, dim, 16):
        index = torch.arange(start, min(start + 16, dim), device=gradient.device)
        basis = torch.zeros(len(index), 1, dim, dtype=gradient.dtype, device=gradient.device)
        basis[torch.arange(len(index)), 0, index] = 1
        rows = -tau * pull(basis.expand(-1, count, -1))
        first = first + inner(rows, basis.expand_as(rows)).sum(0)
        second = second + rows.square().sum((0, 2))
    of_gradient = by_lanczos(lambda v: -tau * pull(v), gradient[None], inverse)
    quadratic, rough, largest, _ = (value[0] for value in of_gradient)
    G = 0.5 * first + 0.25 * second - 0.5 * tau * quadratic
    # estimates the third term and the geometric series of the others, by the eigenvalue that the gradient shows
    third = second.detach() * largest.abs() / 6
    rest = third / (1 - largest).clamp_min(FLOOR) + 0.5 * tau * (quadratic - rough).detach().abs()
    heat = 0.5 * (first - tau * gradient.square().sum(1))
    return Deblurring(G[None], rest, largest, heat.detach())


def by_products(tau: float, gradient: Tensor, pull: Pull, vectors: Tensor, reference: Moments | None) -> Deblurring:
    """Returns G from Krylov spaces of -tau H that start at random vectors and at the gradient."""

    def estimates_of(product: Pull) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns G from all products and from one less, (n, B); the largest eigenvalue and the mean trace, (B,)."""
        logs, rough_logs, largest, trace = by_lanczos(product, vectors, logarithm)
        quadratic, rough_quadratic, other, _ = (value[0] for value in by_lanczos(product, gradient[None], inverse))
        fine, rough = (
            -0.5 * (log + tau * square) for log, square in ((logs, quadratic), (rough_logs, rough_quadratic))
        )
        return fine, rough, torch.maximum(largest.amax(0), other), trace.mean(0)

    fine, rough, largest, trace = estimates_of(lambda v: -tau * pull(v))
    if reference is not None:
        # -tau H_G = tau (C + tau I)^{-1}: all of its functions have closed forms
        along, others = reference.variances.to(gradient) + tau, gradient.new_tensor(reference.rest + tau)
        directions = reference.directions.to(gradient)

        def of_gaussian(function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
            """Returns f(-tau H_G) v for v (..., D), from the function of its eigenvalues."""
            inside, outside = function(tau / along), function(tau / others)
            return outside * v + row_product((inside - outside) * row_product(v, directions.T), directions)

        def shrunk(share: Tensor) -> Tensor:
            return (1 - share).clamp_min(FLOOR)

        others_count = gradient.shape[1] - directions.shape[1]
        determinant = shrunk(tau / along).log().sum() + others_count * shrunk(tau / others).log()
        square = (gradient * of_gaussian(lambda share: 1 / shrunk(share), gradient)).sum(1)
        control, rough_control, _, control_trace = estimates_of(lambda v: of_gaussian(lambda share: share, v))
        trace = (tau / along).sum() + others_count * tau / others + trace - control_trace
        exact = -0.5 * (determinant + tau * square)
        fine, rough = exact + fine - control, exact + rough - rough_control
    heat = 0.5 * (trace - tau * gradient.square().sum(1))
    return Deblurring(fine, (fine - rough).detach().mean(0).abs(), largest, heat.detach())


def logarithm(shrunk: Tensor) -> Tensor:
    """Returns the first entry of log(S) of positive matrices S (..., m, m), differentiable where eigenvalues coincide:
    log(1 - a) = -int_0^1 a/(1 - u a) du, by 32 nodes. They give logarithms to 2e-5 for eigenvalues from 0.01 on and
    too large ones below: -6.82 in place of -6.91 for 1e-3, -8.10 in place of -11.51 for ``FLOOR``.
    """
    nodes, weights = gauss_legendre(32)
    eye = torch.eye(shrunk.shape[-1], dtype=shrunk.dtype, device=shrunk.device)
    rest, total = eye - shrunk, 0.0
    for u, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        total = total - weight * torch.linalg.solve(eye - u * rest, rest)[..., 0, 0]
    return total


def inverse(shrunk: Tensor) -> Tensor:
    """Returns the first entry of S^{-1} of positive matrices S (..., m, m)."""
    return torch.linalg.solve(shrunk, torch.eye(shrunk.shape[-1]).to(shrunk)[:, 0])[..., 0]


def by_lanczos(apply: Pull, vectors: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Returns four tensors (n, B): v'f(I - A)v for vectors (n, B, D), from ``PRODUCTS`` products with A and from one
    less; the largest Ritz value of A; and v'Av.

    A is tridiagonal in Lanczos' basis of span(v, Av, ...), which is fully reorthogonalised (Golub and Welsch 1969; for
    such traces Ubaru, Chen and Saad 2017). The basis ends where a product adds no new direction.

    Arguments:
        apply: maps v (n, B, D) to Av.
        function: maps I - A in that basis, (..., m, m), to the first entry of f(I - A), (...,).
    """
    size = vectors.square().sum(2)
    basis = [vectors / size.clamp_min(1e-300).sqrt()[..., None]]
    diagonal, off_diagonal = [], []
    for step in range(PRODUCTS):
        product = apply(basis[-1])
        diagonal.append(inner(product, basis[-1]))
        if step + 1 == PRODUCTS:
            break
        scale = inner(product, product).detach()
        for _ in range(2):  # once more against rounding
            for axis in basis:
                product = product - inner(product, axis)[..., None] * axis
        left = inner(product, product)
        new = left > 1e-12 * scale.clamp_min(1e-300)
        length = torch.where(new, left, 1.0).sqrt()
        off_diagonal.append(torch.where(new, length, 0.0))
        basis.append(torch.where(new[..., None], product / length[..., None], 0.0))
    matrix = torch.diag_embed(torch.stack(diagonal, -1))
    off = torch.diag_embed(torch.stack(off_diagonal, -1), 1)
    eye = torch.eye(PRODUCTS, dtype=matrix.dtype, device=matrix.device)
    shrunk = eye - matrix - off - off.mT
    with torch.no_grad():
        values, axes = torch.linalg.eigh(shrunk)
        raised = torch.einsum("...ij,...j,...kj->...ik", axes, values.clamp_min(FLOOR) - values, axes)
        largest = 1 - values[..., 0]
    shrunk = shrunk + raised
    return size * function(shrunk), size * function(shrunk[..., :-1, :-1]), largest, size * diagonal[0]
