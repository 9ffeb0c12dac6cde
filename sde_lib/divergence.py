r"""The divergence of a vector field, from one evaluation of it.

.. math:: \nabla\cdot F(x) = \mathrm{tr}\,J = \mathbb E_v[v^\top J v] \quad\text{where } \mathbb E[vv^\top] = I

(Hutchinson 1989; Skilling 1989). One evaluation of a field gives its value and its pull-back v -> v'J, one backward
pass for each v. The classes of :class:`Probes` choose the vectors v:

=============  ======================================================================================================
BasisVectors   all D basis vectors: the exact trace
Rademacher     k vectors of random signs: the least variance of all laws with independent entries; the diagonal of J
               adds none
Gaussian       k standard normals: the diagonal of J adds twice the sum of its squares to the variance
Orthogonal     k orthogonal directions of length sqrt(D): a sample of a basis without replacement, exact at k = D
HutchPP        k passes find the large directions of J, k give the trace on them exactly, k estimate the rest (Meyer et
               al., arXiv 2010.09649, algorithm 1)
=============  ======================================================================================================

A control variate is a second Jacobian J_G, close to J and with a trace in closed form: the estimate of
tr J = tr J_G + E v'(J - J_G)v has the variance of the difference only, and is unbiased for any J_G.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Pull = Callable[[Tensor], Tensor]
"""Maps v (m, B, *) to v'J of the same shape."""

Control = tuple[Pull, Tensor]
"""The map v -> v'J_G, and tr J_G of shape (B,)."""

USUAL = 2  # probes where their number is left open


class Probes(ABC):
    """The vectors that estimate a trace; ``chunk`` vectors are pulled back at once, which bounds the memory."""

    chunk: int = 16

    @abstractmethod
    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor | None:
        """Draws the random vectors for each sample of x (B, *), as many as the method needs, shape (k, B, *); returns
        None for the exact trace.

        Arguments:
            normals: maps k to standard normals (k, B, *), the one source of all probes, random signs included.
        """

    def settled(self, count: int | None = None) -> "Probes":
        """Returns the probes with an open number (None) set to ``count``, or to ``USUAL`` if that is None."""
        return self

    def estimates(self, dim: int) -> int:
        """Returns the number n of estimates that :meth:`estimate` returns in D = dim dimensions."""
        return self.count

    def isotropic(self, probes: Tensor | None) -> Tensor | None:
        """Returns those of the drawn vectors that have E[vv'] = I, one for each estimate; None for the exact trace."""
        return probes

    def estimate(self, pull: Pull, probes: Tensor | None, x: Tensor) -> Tensor:
        """Returns estimates of the trace of J, shape (n, B), whose mean over n is the result."""
        return inner(pull(probes), probes)

    def stderr(self, estimates: Tensor, dim: int) -> Tensor:
        """Returns the standard error of the mean of estimates (n, B) in ``dim`` dimensions, (B,): NaN for n = 1, but 0
        where a method knows that its trace is exact.
        """
        if len(estimates) == 1 or estimates.numel() == 0:
            return torch.full_like(estimates[0], torch.nan)
        return estimates.std(0) / len(estimates) ** 0.5


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner products of each sample, (m, B, *) to (m, B)."""
    return (a * b).flatten(2).sum(2)


@dataclass(frozen=True)
class BasisVectors(Probes):
    """The exact divergence, by all D basis vectors.

    Arguments:
        chunk: the number of basis vectors pulled back at once; it changes memory and speed, the result by rounding.
    """

    chunk: int = 16

    def __post_init__(self):
        check_least("chunk", self.chunk, 1, 16)

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> None:
        return None

    def estimates(self, dim: int) -> int:
        return 1

    def estimate(self, pull: Pull, probes: None, x: Tensor) -> Tensor:
        dim = x.shape[1:].numel()
        total = x.new_zeros(len(x))
        for first in range(0, dim, self.chunk):
            index = torch.arange(first, min(first + self.chunk, dim), device=x.device)
            basis = torch.zeros(len(index), dim, dtype=x.dtype, device=x.device)
            basis[torch.arange(len(index)), index] = 1
            v = basis.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
            total = total + inner(pull(v), v).sum(0)
        return total[None]

    def stderr(self, estimates: Tensor, dim: int) -> Tensor:
        return torch.zeros_like(estimates[0])


@dataclass(frozen=True)
class Rademacher(Probes):
    """k probes of random signs for each sample.

    Arguments:
        count: the number k; from 2 on the estimates give a standard error. None leaves it open for :meth:`settled`.
    """

    count: int | None = 4

    def __post_init__(self):
        if self.count is not None:
            check_least("count", self.count, 1, 4)

    def settled(self, count: int | None = None) -> Probes:
        return replace(self, count=count or USUAL) if self.count is None else self

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        z = normals(self.count)
        return torch.where(z < 0, -1.0, 1.0).to(x.dtype)


@dataclass(frozen=True)
class Gaussian(Probes):
    """k standard normal probes for each sample.

    Arguments:
        count: the number k; from 2 on the estimates give a standard error. None leaves it open for :meth:`settled`.
    """

    count: int | None = 4

    def __post_init__(self):
        if self.count is not None:
            check_least("count", self.count, 1, 4)

    def settled(self, count: int | None = None) -> Probes:
        return replace(self, count=count or USUAL) if self.count is None else self

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        return normals(self.count).to(x.dtype)


@dataclass(frozen=True)
class Orthogonal(Probes):
    """k orthogonal probes of length sqrt(D) for each sample, uniform over all such frames.

    The k estimates are a sample without replacement of the D that sum to D tr J, so that the variance of their mean is
    smaller than that of k independent ones by the factor (D - k)/(D - 1), and k = D is exact.

    Arguments:
        count: the number k; min(k, D) are used. None leaves it open for :meth:`settled`.
    """

    count: int | None = 4

    def __post_init__(self):
        if self.count is not None:
            check_least("count", self.count, 1, 4)

    def settled(self, count: int | None = None) -> Probes:
        return replace(self, count=count or USUAL) if self.count is None else self

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        z, dim = normals(self.count).flatten(2), x.shape[1:].numel()
        frame = orthonormal(z[:dim])
        return (dim**0.5 * frame).reshape(len(frame), *x.shape).to(x.dtype)

    def estimates(self, dim: int) -> int:
        return min(self.count, dim)

    def stderr(self, estimates: Tensor, dim: int) -> Tensor:
        # E[s^2] = Var D/(D-1), and Var of the mean = Var/k (D-k)/(D-1)
        if len(estimates) == dim:
            return torch.zeros_like(estimates[0])
        return super().stderr(estimates, dim) * ((dim - len(estimates)) / dim) ** 0.5


def orthonormal(vectors: Tensor) -> Tensor:
    """Returns an orthonormal basis of the span of each sample's k <= D vectors (k, B, D), in that shape.

    It is the Gram-Schmidt basis, with the vectors' signs: for Gaussian vectors it is uniform over all frames.
    """
    q, r = torch.linalg.qr(vectors.double().permute(1, 2, 0))
    q = q * torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)[:, None]
    return q.permute(2, 0, 1).to(vectors.dtype)


@dataclass(frozen=True)
class HutchPP(Probes):
    """Hutch++: the exact trace on the span of k products v'J with random v, and the rest of it by k random signs.

    It takes k + 2 min(k, D) backward passes; all but the first min(k, D) need the results of those. It is efficient
    where J has at most k large eigenvalues; docs/results.md has its cost for a trained network.

    Arguments:
        count: the number k; from 2 on the estimates give a standard error. None leaves it open for :meth:`settled`.
    """

    count: int | None = 4

    def __post_init__(self):
        if self.count is not None:
            check_least("count", self.count, 1, 4)

    def settled(self, count: int | None = None) -> Probes:
        return replace(self, count=count or USUAL) if self.count is None else self

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        z = normals(2 * self.count).to(x.dtype)
        # the sketch is normal: one of signs can hold a vector twice, and no basis of its span is then smooth in time
        return torch.cat([z[: self.count], torch.where(z[self.count :] < 0, -1.0, 1.0).to(x.dtype)])

    def isotropic(self, probes: Tensor) -> Tensor:
        return probes[self.count :]  # the signs

    def estimate(self, pull: Pull, probes: Tensor, x: Tensor) -> Tensor:
        sketch, signs = probes.split(self.count)
        sketch = sketch[: x.shape[1:].numel()]
        q = orthonormal(pull(sketch).flatten(2))  # (k, B, D)
        inside = inner(pull(q.reshape(len(q), *x.shape)), q.reshape(len(q), *x.shape)).sum(0)
        outside = project_out(signs.flatten(2), q).reshape(signs.shape)
        return inside + inner(pull(outside), outside)


def project_out(v: Tensor, q: Tensor) -> Tensor:
    """Returns v (m, B, D) less its projection on the span of the orthonormal q (k, B, D)."""
    return v - torch.einsum("mbk,kbd->mbd", torch.einsum("mbd,kbd->mbk", v, q), q)


@dataclass(frozen=True)
class ExactUpTo(Probes):
    """The exact trace by all basis vectors up to D = limit, and other probes for larger D.

    Arguments:
        limit: the largest D with the exact trace.
        chunk: as in :class:`BasisVectors`.
        otherwise: the probes for more dimensions.
    """

    limit: int = 64
    chunk: int = 16
    otherwise: Probes = field(default_factory=Rademacher)

    def __post_init__(self):
        check_least("limit", self.limit, 0, 64)
        check_least("chunk", self.chunk, 1, 16)

    def choice(self, dim: int) -> Probes:
        return BasisVectors(self.chunk) if dim <= self.limit else self.otherwise

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor | None:
        return self.choice(x.shape[1:].numel()).draw(x, normals)

    def estimates(self, dim: int) -> int:
        return self.choice(dim).estimates(dim)

    def settled(self, count: int | None = None) -> Probes:
        return replace(self, otherwise=self.otherwise.settled(count))

    def isotropic(self, probes: Tensor | None) -> Tensor | None:
        return None if probes is None else self.otherwise.isotropic(probes)

    def estimate(self, pull: Pull, probes: Tensor | None, x: Tensor) -> Tensor:
        return self.choice(x.shape[1:].numel()).estimate(pull, probes, x)

    def stderr(self, estimates: Tensor, dim: int) -> Tensor:
        return self.choice(dim).stderr(estimates, dim)


def check_least(key: str, value: int, least: int, instead: int) -> None:
    if value < least:
        raise ValueError(f"`{key}`={value} must be at least {least}; type `{key}`={instead}")


def divergence(
    field: Callable[[Tensor], Tensor],
    x: Tensor,
    method: Probes,
    probes: Tensor | None = None,
    control: Control | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the field at x and its divergence, from one evaluation of the field and the method's backward passes.

    Both are differentiable if gradients are enabled and x requires one, and are detached otherwise.

    Arguments:
        field: maps (B, *) to (B, *), each sample independently.
        x: the points, shape (B, *).
        method: how the trace is estimated.
        probes: the result of ``method.draw``, (k, B, *), or None for the exact trace.
        control: the control variate of random probes; not used for the exact trace.

    Returns:
        The field's values, shape (B, *), and the estimates, shape (n, B), whose mean over n is the divergence.
    """
    differentiable = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        value, pull = linearised(field, x if differentiable else x.detach(), method.chunk)
        if control is None or probes is None:
            estimates = method.estimate(pull, probes, x)
        else:
            near, trace = control
            estimates = trace + method.estimate(lambda v: pull(v) - near(v), probes, x)
    return (value, estimates) if differentiable else (value.detach(), estimates.detach())


def linearised(field: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> tuple[Tensor, Pull]:
    """Returns the field at x (B, *), with its graph, and its pull-back v -> v'J, from one evaluation.

    The caller enables gradients. If x requires a gradient, the results of the pull-back are differentiable. ``chunk``
    vectors are pulled back at once.
    """
    differentiable = x.requires_grad
    if not differentiable:
        x = x.detach().requires_grad_()
    value = field(x)

    def pull(v: Tensor) -> Tensor:
        if len(v) > chunk:
            return torch.cat([pull(part) for part in v.split(chunk)])
        if len(v) > 1:  # one probe needs no batching of the backward pass
            try:
                return torch.autograd.grad(
                    value, x, v, retain_graph=True, create_graph=differentiable, is_grads_batched=True
                )[0]
            except RuntimeError:  # torch cannot batch some second derivatives, such as GroupNorm's
                return torch.cat([pull(each[None]) for each in v])
        return torch.autograd.grad(value, x, v[0], retain_graph=True, create_graph=differentiable)[0][None]

    return value, pull
