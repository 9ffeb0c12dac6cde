r"""Tests of whether samples are copies of the training data: nearest neighbours, and the C_T test.

With d(x) the distance of x to its nearest neighbour in the training set, a model that has learnt the density puts its
samples as far from the training data as held-out data lie; one that copies puts them nearer. In each cell pi of a
partition of the space, with n held-out and m generated points in it,

.. math::
    U_\pi = \#\{(p, q): d(q) > d(p)\} + \tfrac12 \#\{d(q) = d(p)\}, \qquad
    Z_\pi = \frac{U_\pi - nm/2}{\sqrt{nm\,(n + m + 1)/12}},

with p a held-out and q a generated point, is the Mann-Whitney statistic. Z, whose variance we correct for ties, is
nearly N(0, 1) where both are alike, and

.. math:: C_T = \sum_\pi w_\pi Z_\pi, \qquad w_\pi = n_\pi \Big/ \sum_{\pi'} n_{\pi'},

over the cells with enough points of both (Meehan, Chaudhuri and Dasgupta 2020, arXiv 2004.05675). C_T far below 0 is
copying, far above 0 underfitting. Since the cells' Z are independent, C_T has the standard deviation (sum of w^2)^(1/2)
under the null hypothesis, which for K equal cells is 1/sqrt(K): judge by C_T in units of it. Unlike in the authors'
program, d is the distance to all training data and not only to those of the cell, so that points at a cell's edge are
treated like all others.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from torch import Tensor

LEAST = 10  # points of either kind that a cell needs for Z to be nearly normal


def nearest(x: Tensor, reference: Tensor, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Finds the ``count`` nearest neighbours of x (N, *) in a reference (M, *), exactly and in bounded memory.

    Returns:
        Euclidean distances in the unit of the values, and indices, both (N, count), nearest first.

    Raises:
        ValueError: x and reference differ in the number of values, or the reference has fewer than ``count`` points.
    """
    from sklearn.neighbors import NearestNeighbors  # imported here, since it takes a second

    a, b = (part.flatten(1).double().cpu().numpy() for part in (x, reference))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the points have {a.shape[1]} and {b.shape[1]} values each; a distance needs equal numbers")
    if len(b) < count:
        raise ValueError(f"{count} nearest neighbours are asked for, and there are {len(b)} points to be near to")
    indices = NearestNeighbors(n_neighbors=count).fit(b).kneighbors(a, return_distance=False)
    # recomputed from the differences: the library expands the square, and the distance of a copy would not be 0
    distances = np.stack([np.linalg.norm(a - b[column], axis=1) for column in indices.T], 1)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


class Cells:
    """A partition of the space by k-means on the training data.

    Arguments:
        train: training data (M, *), of which the first 20,000 are used.
        count: the number of cells.
        seed: the seed of the initial centres.
    """

    def __init__(self, train: Tensor, count: int, seed: int = 0):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        self.means = KMeans(count, n_init=3, random_state=seed % 2**32)  # scikit-learn's seeds have 32 bits
        with warnings.catch_warnings():
            # with fewer different points than cells, some cells stay empty
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.means.fit(train[:20_000].flatten(1).double().cpu().numpy())

    def __call__(self, x: Tensor) -> np.ndarray:
        """Returns the cell 0 ... count - 1 of each point of x (N, *), shape (N,)."""
        return self.means.predict(x.flatten(1).double().cpu().numpy())


@dataclass(frozen=True)
class CopyingTest:
    """The result of the C_T test.

    Attributes:
        statistic: C_T; NaN where no cell has enough points.
        std: its standard deviation if generated points have the law of held-out ones.
        z, weights: Z and w of every cell with enough points, (K,).
    """

    statistic: float
    std: float
    z: np.ndarray
    weights: np.ndarray

    @property
    def deviations(self) -> float:
        """C_T in units of its standard deviation; below -3 it shows copying."""
        return self.statistic / self.std


def copying_test(
    held_out: np.ndarray, generated: np.ndarray, held_out_cells: np.ndarray, generated_cells: np.ndarray
) -> CopyingTest:
    """Runs the C_T test.

    Arguments:
        held_out, generated: the distances of held-out (n,) and of generated points (m,) to the nearest training point.
        held_out_cells, generated_cells: the cell of each of these points, as :class:`Cells` returns it.
    """
    scores, sizes = [], []
    for cell in np.unique(held_out_cells):
        p, q = held_out[held_out_cells == cell], generated[generated_cells == cell]
        if min(len(p), len(q)) >= LEAST:
            scores.append(mann_whitney(p, q))
            sizes.append(len(p))
    if not scores:
        return CopyingTest(np.nan, np.nan, np.empty(0), np.empty(0))
    z, weights = np.array(scores), np.array(sizes) / sum(sizes)
    return CopyingTest(float(weights @ z), float(np.sqrt((weights**2).sum())), z, weights)


def mann_whitney(p: np.ndarray, q: np.ndarray) -> float:
    """Returns Z of p (n,) and q (m,), with its correction for ties: below 0 if q tends to be smaller, 0 if all values
    are equal.
    """
    n, m = len(p), len(q)
    from scipy.stats import rankdata  # imported here, since it takes a second

    ranks = rankdata(np.concatenate((p, q)))
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    u = ranks[n:].sum() - m * (m + 1) / 2
    return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0
