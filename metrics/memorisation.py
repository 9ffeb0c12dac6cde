r"""Whether samples are copies of the training data: nearest neighbours, and the C_T test.

With d(x) the distance of x to its nearest neighbour in the training set, a model that has learnt the density puts its
samples as far from the training data as held-out data lie; one that copies puts them nearer. In each cell pi of a
partition of the space, with n held-out and m generated points in it,

.. math::
    U_\pi = \#\{(p, q): d(q) > d(p)\} + \tfrac12 \#\{d(q) = d(p)\}, \qquad
    Z_\pi = \frac{U_\pi - nm/2}{\sqrt{nm\,(n + m + 1)/12}},

is the Mann-Whitney statistic, of which Z is nearly N(0, 1) where both are alike (with its correction for ties), and

.. math:: C_T = \sum_\pi w_\pi Z_\pi, \qquad w_\pi = n_\pi \Big/ \sum_{\pi'} n_{\pi'},

over the cells with enough points of both (Meehan, Chaudhuri and Dasgupta 2020, arXiv 2004.05675). C_T far below 0 is
copying, far above 0 underfitting. Since the cells' Z are independent, C_T has the standard deviation
(sum of w^2)^(1/2) where nothing is wrong, 1 over the root of the number of cells for equal ones: C_T over it is the
number to judge by. Differently from the authors' program d is taken to all training data and not to those of the cell
alone, so that points at a cell's edge are no exception.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from torch import Tensor

LEAST = 10  # points of either kind that a cell needs: below, Z is not normal enough


def nearest(x: Tensor, reference: Tensor, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` nearest neighbours of x (N, *) in a reference (M, *): Euclidean distances in the unit of the values
    and indices, both (N, count), nearest first; exact, in bounded memory.
    """
    from sklearn.neighbors import NearestNeighbors  # here, since it takes a second

    a, b = (part.flatten(1).double().cpu().numpy() for part in (x, reference))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the points have {a.shape[1]} and {b.shape[1]} values each; a distance needs equal numbers")
    if len(b) < count:
        raise ValueError(f"{count} nearest neighbours are asked for, and there are {len(b)} points to be near to")
    found = NearestNeighbors(n_neighbors=count).fit(b).kneighbors(a, return_distance=False)
    # distances anew, from the differences: the library expands the square in many dimensions, and copies would not be 0
    distances = np.stack([np.linalg.norm(a - b[column], axis=1) for column in found.T], 1)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)


class Cells:
    """A partition of the space by k-means on the training data.

    Arguments:
        train: (M, *), of which at most 20,000 decide.
        count: how many cells.
        seed: of the centres' start.
    """

    def __init__(self, train: Tensor, count: int, seed: int = 0):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        self.means = KMeans(count, n_init=3, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than cells: some stay empty
            self.means.fit(train[:20_000].flatten(1).double().cpu().numpy())

    def __call__(self, x: Tensor) -> np.ndarray:
        """The cell 0 ... count - 1 of each point of x (N, *), shape (N,)."""
        return self.means.predict(x.flatten(1).double().cpu().numpy())


@dataclass(frozen=True)
class CopyingTest:
    """What the C_T test found.

    Attributes:
        statistic: C_T; NaN where no cell has enough points.
        std: its standard deviation where generated points are like held-out ones.
        z, weights: Z and w of every cell that counts, (K,).
    """

    statistic: float
    std: float
    z: np.ndarray
    weights: np.ndarray

    @property
    def deviations(self) -> float:
        """C_T in units of its standard deviation: below -3 copying is seen."""
        return self.statistic / self.std


def copying_test(
    held_out: np.ndarray, generated: np.ndarray, held_out_cells: np.ndarray, generated_cells: np.ndarray
) -> CopyingTest:
    """The C_T test of distances to the nearest training point, held-out (n,) and generated (m,), and their cells."""
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
    """Z of the pairs in which q (m,) exceeds p (n,): below 0 where q is the smaller; 0 where all values are equal."""
    n, m = len(p), len(q)
    from scipy.stats import rankdata  # here, since it takes a second

    ranks = rankdata(np.concatenate((p, q)))
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    u = ranks[n:].sum() - m * (m + 1) / 2
    return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0
