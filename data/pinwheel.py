r"""The pinwheel: five Gaussian arms, each wound up by an angle that grows with the distance along it.

A vector :math:`f \sim N((1, 0), \mathrm{diag}(0.3^2, 0.1^2))` is turned clockwise by the angle
:math:`2\pi k/5 + \tfrac14 e^{f_1}`, k uniform on 0 ... 4, and doubled. The turn keeps the length: with
:math:`r = 2\rho (\cos a, \sin a)` and :math:`f = \rho (\cos\varphi, \sin\varphi)`, the point comes from arm k where

.. math:: h(\varphi) - a \equiv 2\pi k/5 \pmod{2\pi}, \qquad h(\varphi) = \varphi - \tfrac14 e^{\rho\cos\varphi}.

At fixed :math:`\rho` the angle changes by :math:`da = h'(\varphi)\, d\varphi`; hence, over the roots of all arms,

.. math::
    p(r) = \frac{1}{4 \cdot 5} \sum_{\varphi:\; 5 (h(\varphi) - a) / 2\pi \,\in\, \mathbb{Z}}
        \frac{p_f(\rho\cos\varphi, \rho\sin\varphi)}{|h'(\varphi)|}, \qquad
    h'(\varphi) = 1 + \tfrac14 \rho \sin\varphi\, e^{\rho\cos\varphi}.

Roots are found as crossings of integers on a grid of angles, then by bisection. Up to :math:`\rho = 1.69` there are
five; beyond, h is no longer monotone and an arm overlaps itself. Beyond :math:`\rho = 5`, where log p is below -87, an
arm winds round many times within its own width, and p is replaced by its average over the angle a.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.synthetic import Synthetic

ARMS, RATE, RADIAL, TANGENTIAL = 5, 0.25, 0.3, 0.1
WOUND = 5.0  # the distance rho beyond which p is averaged over the angle a
CELLS = 512  # cells of the grid of angles phi, in each of which a root is bracketed


class Pinwheel(Synthetic):
    """Five wound-up arms, as in FFJORD's toy data (arXiv 1810.01367).

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
    """

    def __init__(self, count: int = 200_000, test_count: int = 10_000, seed: int = 0):
        # by the five-fold symmetry the mean is 0 and both coordinates have half of E |r|^2 = 4 E |f|^2
        std = math.sqrt(2 * (1 + RADIAL**2 + TANGENTIAL**2))
        super().__init__(count, test_count, seed, (2,), 0.0, std, width=CELLS)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        along, across = (np.array([[RADIAL], [TANGENTIAL]]) * rng.standard_normal((2, count))) + [[1], [0]]
        arm = rng.integers(0, ARMS, count)
        angle = 2 * math.pi / ARMS * arm + RATE * np.exp(along)
        cos, sin = np.cos(angle), np.sin(angle)
        return 2 * np.stack((cos * along + sin * across, -sin * along + cos * across), 1), arm

    def log_density(self, r: Tensor) -> Tensor:
        rho, a = r.norm(dim=1) / 2, torch.atan2(r[:, 1], r[:, 0])
        row, phi = roots(rho.clamp(max=WOUND), a)
        along, across = rho[row] * phi.cos(), rho[row] * phi.sin()
        log_feature = log_normal((along - 1) / RADIAL) + log_normal(across / TANGENTIAL) - math.log(RADIAL * TANGENTIAL)
        slope = 1 + RATE * across * along.exp()
        terms = log_feature - slope.abs().log() - math.log(4 * ARMS)
        return torch.where(rho <= WOUND, grouped_logsumexp(terms, row, len(r)), averaged_log_density(rho))


def roots(rho: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the angles phi of the points with polar coordinates rho, a (B,), up to rho = WOUND.

    Two roots in one cell of the grid, at a turning point of h, are missed.

    Returns:
        for each of the R roots of all points the index of its point, and phi, both (R,).
    """
    s = torch.linspace(-1, 1, CELLS + 1, dtype=rho.dtype)
    grid = math.pi * s * s.abs()  # finest at phi = 0, where the mass is
    level = turns(grid, rho[:, None], a[:, None]).floor()
    step = level.diff(dim=1)
    row, cell = step.nonzero(as_tuple=True)  # steps of 1: up to WOUND turns() changes by less than 0.4 in a cell
    target = torch.maximum(level[row, cell], level[row, cell + 1])
    rising = step[row, cell] > 0
    low, high = grid[cell], grid[cell + 1]
    for _ in range(50):  # cells are at most 0.025 wide: 50 halvings leave 3e-17
        middle = (low + high) / 2
        beyond = (turns(middle, rho[row], a[row]) >= target) == rising
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return row, (low + high) / 2


def turns(phi: Tensor, rho: Tensor, a: Tensor) -> Tensor:
    """Returns 5 (h(phi) - a) / 2 pi, an integer at the roots."""
    return ARMS / (2 * math.pi) * (phi - RATE * (rho * phi.cos()).exp() - a)


def averaged_log_density(rho: Tensor) -> Tensor:
    """Returns the log of the mean of p over the angle a, by Laplace's method in phi: distances rho (B,) to nats (B,).

    A rho below WOUND is taken for WOUND.
    """
    rho = rho.clamp(min=WOUND)
    bend = 1 - (rho - 1) / rho * (TANGENTIAL / RADIAL) ** 2
    return log_normal((rho - 1) / RADIAL) - (4 * RADIAL * 2 * math.pi * rho * bend.sqrt()).log()


def log_normal(z: Tensor) -> Tensor:
    """Returns log N(z; 0, 1)."""
    return -z.square() / 2 - math.log(2 * math.pi) / 2


def grouped_logsumexp(terms: Tensor, group: Tensor, groups: int) -> Tensor:
    """Returns the logsumexp of the terms (R,) of each group, with indices (R,), to (groups,)."""
    largest = terms.new_full((groups,), -math.inf).scatter_reduce(0, group, terms, "amax")
    total = terms.new_zeros(groups).index_add(0, group, (terms - largest[group]).exp())
    return largest + total.log()
