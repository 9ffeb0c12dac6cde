r"""The divergence of a vector field, from one evaluation of it.

.. math:: \nabla\cdot F(x) = \mathrm{tr}\,J = \mathbb E_v[v^\top J v] \quad\text{where } \mathbb E[vv^\top] = I

(Hutchinson 1989; Skilling 1989). Every method here is a set of probes v and a weight: with the D basis vectors of
length sqrt(D), each as likely as the other, the mean over all of them is the exact trace; with k random probes the
mean is unbiased and the spread over the k gives its standard error. Rademacher signs have no variance on the
diagonal of J and the least of all probes with independent entries; Gaussian ones pay twice the diagonal's square.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class Probes(ABC):
    """Which vectors v probe the Jacobian; ``chunk`` of them are pulled back at once, which bounds the memory."""

    chunk: int = 16

    @abstractmethod
    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor | None:
        """k probes for each sample of x (B, *), shape (k, B, *), or None for the whole basis.

        Arguments:
            normals: gives (k, B, *) standard normals; see :class:`Rademacher` for why signs come from them too.
        """


@dataclass(frozen=True)
class BasisVectors(Probes):
    """The exact divergence, by all D basis vectors.

    Arguments:
        chunk: how many basis vectors are pulled back at once; memory grows with it, the result does not depend on it.
    """

    chunk: int = 16

    def __post_init__(self):
        if self.chunk < 1:
            raise ValueError(
                f"likelihood.probes.chunk={self.chunk} must be at least 1; type for example likelihood.probes.chunk=16"
            )

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> None:
        return None


@dataclass(frozen=True)
class Rademacher(Probes):
    """k probes of random signs for each sample.

    Arguments:
        count: the number k; from 2 on the estimate carries its own standard error.
    """

    count: int = 4

    def __post_init__(self):
        check_count(self.count)

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        z = normals(self.count)
        return torch.where(z < 0, -1.0, 1.0).to(x.dtype)  # the sign of a normal, so that one source of noise serves all


@dataclass(frozen=True)
class Gaussian(Probes):
    """k standard normal probes for each sample.

    Arguments:
        count: the number k; from 2 on the estimate carries its own standard error.
    """

    count: int = 4

    def __post_init__(self):
        check_count(self.count)

    def draw(self, x: Tensor, normals: Callable[[int], Tensor] | None) -> Tensor:
        return normals(self.count).to(x.dtype)


def check_count(count: int) -> None:
    if count < 1:
        raise ValueError(
            f"likelihood.probes.count={count} must be at least 1; type for example likelihood.probes.count=4"
        )


def divergence(
    field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor | None, chunk: int = 16
) -> tuple[Tensor, Tensor]:
    """The field at x and its divergence there, from one evaluation of the field and one backward pass a probe.

    Arguments:
        field: maps (B, *) to (B, *), each sample by itself.
        x: the points, shape (B, *).
        probes: (k, B, *), or None for the exact trace by all basis vectors.
        chunk: how many backward passes share one batched call.

    Returns:
        The field's values, shape (B, *), and the estimates, shape (k, B); of the exact trace, shape (1, B).
    """
    differentiable = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        if not differentiable:
            x = x.detach().requires_grad_()
        value = field(x)

        def pull(v: Tensor, more: bool) -> Tensor:
            """v' J v for each of the probes v of shape (m, B, *), shape (m, B)."""
            keep = more or differentiable
            if len(v) == 1:  # one probe needs no batching of the backward pass
                (vJ,) = torch.autograd.grad(value, x, v[0], retain_graph=keep, create_graph=differentiable)
                return (vJ * v[0]).flatten(1).sum(1)[None]
            try:
                (vJ,) = torch.autograd.grad(
                    value, x, v, retain_graph=True, create_graph=differentiable, is_grads_batched=True
                )
            except RuntimeError:  # torch cannot batch every second derivative, GroupNorm's for one: then one by one
                return torch.cat([pull(each[None], more=True) for each in v])
            return (vJ * v).flatten(2).sum(2)

        if probes is not None:
            parts = [pull(v, more=i * chunk + len(v) < len(probes)) for i, v in enumerate(probes.split(chunk))]
            estimates = torch.cat(parts)
        else:
            dim = x[0].numel()
            total = torch.zeros((), dtype=value.dtype, device=value.device)
            for first in range(0, dim, chunk):
                index = torch.arange(first, min(first + chunk, dim), device=x.device)
                basis = torch.zeros(len(index), dim, dtype=value.dtype, device=x.device)
                basis[torch.arange(len(index)), index] = 1
                v = basis.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
                total = total + pull(v, more=first + chunk < dim).sum(0)
            estimates = total[None]
    return (value, estimates) if differentiable else (value.detach(), estimates.detach())
