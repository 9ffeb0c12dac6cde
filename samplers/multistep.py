r"""The common form of the multistep solvers: a step is linear in x, the predictions at the last times, and the noise.

.. math::
    x_s = c\,x_t + \sum_{j<m} w_j\,y_j + N\,z, \qquad y_j = A_j\,x_{t_j} + C_j\,s_\theta(x_{t_j}, t_j)

The step starts at t_0 = t, the steps before it started at t_1, t_2, ... y is a prediction made from the score: of the
data, of the noise or of the velocity. Later steps use y again, so that a step costs one evaluation at every order. With
the method's own clock u, :math:`h = u_s - u_t` and :math:`\tau = (u - u_t)/h`, the probability flow's solution from t
to s needs an integral over y only:

.. math:: x_s = c\,x_t + q_s \int_0^1 k(\tau)\,y\,d\tau, \qquad S = \sqrt{\alpha^2 + \sigma^2}

========  ==========================================  ==========================  ======  ===================  =========
y         in x and the score s                        c                           q       k                    clock u
========  ==========================================  ==========================  ======  ===================  =========
data      :math:`(x + \sigma^2 s)/\alpha`             :math:`\sigma_s/\sigma_t`   alpha   h e^{-h (1 - tau)}   lambda
noise     :math:`-\sigma\,s`                          :math:`\alpha_s/\alpha_t`   sigma   -h e^{h (1 - tau)}   lambda
velocity  :math:`-(x/S + S\,s)\,\sigma/\alpha`        :math:`S_s/S_t`             S       h                    theta
========  ==========================================  ==========================  ======  ===================  =========

with the half log-SNR :math:`\lambda = \log(\alpha/\sigma)` and the angle :math:`\theta = \arctan(\sigma/\alpha)`. A
solver replaces y by the polynomial through its last values (with two values, data prediction takes the published weight
1/2 instead: :mod:`scoresde.samplers.exponential`). In units of q_s its weights depend only on the grid's lambda, so
that one implementation serves every SDE. With noise (eta > 0) c, k and N are those of
:mod:`scoresde.samplers.exponential`.

The start: with fewer values than its order needs, a method of order p would begin with steps of error h^2, and have
order 2 in the end. So each of these first steps integrates the whole way from T anew, with the polynomial through all
values that exist by then. Since everything is linear, this changes only the weights and costs no evaluation. The error
that remains is of order h^3. (UniPC does this otherwise: its corrector repeats only the step before.)
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoresde.sde_lib import SDE, Affine
from scoresde.sde_lib.quadrature import gauss_legendre

from .step import Step

NODES, WEIGHTS = gauss_legendre(32)  # of the quadrature over a step, on [0, 1]


class Row(NamedTuple):
    """The coefficients of one step: y = A x + C score at t, then x_s = c x + sum_j w_j y_j + N z.

    ``weights[m - 1]`` holds w_0, ..., w_{m-1} for a step with m values of y at hand, the newest first. If ``weights``
    is empty, A x + C score is the mean of x_s itself.
    """

    t: float
    A: float
    C: float
    c: float
    weights: list[list[float]]
    N: float


class Multistep(Step):
    """A linear multistep method; ``depth`` is the largest number of values of y that a step uses."""

    normals = 0  # deterministic, unless a method overrides it
    depth: int

    @abstractmethod
    def coefficients(self, sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        """Returns (A, C, c, q_s, N) of the module's formulas for the steps t -> s, each in the shape of t.

        A and C make the prediction y = A x + C score at t, c is the factor of x, q_s scales the weights, and N is the
        std of the noise.
        """

    def clock(self, sde: SDE, grid: Tensor) -> Tensor:
        """Returns u at the times of the grid: the half log-SNR lambda, unless the method overrides it."""
        return sde.half_log_snr(grid)

    @abstractmethod
    def exponent(self, h: Tensor) -> Tensor:
        """Returns H of the steps h: a step multiplies x, in units of q, by e^{-H}. Without noise H is h for data, -h
        for noise and 0 for velocity.
        """

    @abstractmethod
    def integrate(self, tau: Tensor, h: Tensor) -> Tensor:
        """Returns the weights of int_0^1 k y dtau for the polynomial y through values at the nodes tau, or near them:
        see the method.

        Shapes: tau (n, m) and h (n,) to (n, m), for n steps with m nodes each.
        """

    def weights(self, clock: Tensor, m: int) -> Tensor:
        """Returns the weights, in units of q_s, of the last m values of y, the newest first.

        Arguments:
            clock: u at the n + 1 times of the grid.

        Returns:
            shape (n - m + 1, m); row i is for the step that starts at time m - 1 + i of the grid.
        """
        if m == self.depth:
            return self.of_step(clock, m, 0)
        # the first steps: the last m steps anew with m values, less what these steps have added with m - 1 values
        anew = sum(self.of_step(clock, m, back) for back in range(m))
        if m == 1:
            return anew
        added = sum(self.of_step(clock[:-1], m - 1, back) for back in range(m - 1))
        return anew - torch.exp(-self.exponent(clock.diff())[m - 1 :, None]) * pad(added, (1, 0))

    def of_step(self, clock: Tensor, m: int, back: int) -> Tensor:
        """Returns the weights by which the step ``back`` steps ago adds to the present x_s, shape (n - m + 1, m).

        The step is integrated with the polynomial through the last m values; back = 0 is the present step.
        """
        steps = clock.diff()
        H, newest = self.exponent(steps), torch.arange(m - 1, len(steps))
        step = newest - back
        start, h = clock[step], steps[step]
        tau = (clock[newest[:, None] - torch.arange(m)] - start[:, None]) / h[:, None]
        since = sum((H[step + i] for i in range(1, back + 1)), torch.zeros_like(h))
        return torch.exp(-since)[:, None] * self.integrate(tau, h)

    def prepare(self, sde: SDE, grid: Tensor) -> list[Row]:
        A, C, c, q, N = (column.tolist() for column in self.coefficients(sde, grid[:-1], grid[1:]))
        times, clock = grid.tolist(), self.clock(sde, grid)
        weights: list[list[list[float]]] = [[] for _ in A]
        for m in range(1, min(self.depth, len(A)) + 1):
            for n, in_units_of_q in enumerate(self.weights(clock, m).tolist(), start=m - 1):
                weights[n].append([q[n] * w for w in in_units_of_q])
        if self.depth > 1:
            return [Row(*row) for row in zip(times[:-1], A, C, c, weights, N, strict=True)]
        # a single value needs no memory: its weight is folded into A and C, and the step is one affine evaluation
        w = [of_row[0][0] for of_row in weights]
        return [Row(times[n], c[n] + w[n] * A[n], w[n] * C[n], c[n], [], N[n]) for n in range(len(A))]

    def __call__(
        self, row: Row, score: Affine, x: Tensor, z: list[Tensor], memory: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        t, A, C, c, weights, N = row
        mean = prediction = score(x, t, A, C)
        if weights:
            memory = (prediction, *(memory or ()))[: len(weights)]
            mean = x * c
            for w, y in zip(weights[len(memory) - 1], memory, strict=True):
                mean = torch.add(mean, y, alpha=w)
        return (torch.add(mean, z[0], alpha=N) if z else mean), mean, memory


@dataclass(frozen=True)
class ExtrapolatingMultistep(Multistep):
    """An explicit method of any order, whose polynomial goes through the last ``order`` values of y."""

    order: int = 3

    def __post_init__(self):
        if self.order < 1:
            raise ValueError(f"`order`={self.order} must be at least 1; type `order`=3")

    @property
    def depth(self) -> int:
        return self.order


def lagrange(tau: Tensor) -> Tensor:
    """Returns the m Lagrange polynomials of the nodes tau at the 32 quadrature NODES, shape (n, m) to (n, m, 32)."""
    others = ~torch.eye(tau.shape[1], dtype=torch.bool)
    gaps = torch.where(others, tau[:, :, None] - tau[:, None], 1)  # (n, j, i): tau_j - tau_i
    terms = torch.where(others[..., None], (NODES - tau[..., None])[:, None] / gaps[..., None], 1)
    return terms.prod(2)
