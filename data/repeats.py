r"""Finds values and rows that repeat in continuous data, which have no density then.

Two draws from a density are equal with probability 0, in float32 with about 1e-7. Where values or rows repeat, or a
direction does not vary, the law of the data has mass on a set of volume 0 and no density p. A model that perturbs its
data with noise finds the density of the perturbed law instead, with noise of standard deviation k = sigma(eps) /
alpha(eps) in model units: each repeated value becomes a peak of height proportional to 1/k, and

.. math:: \mathbb E[-\log p_k(x)] = \text{const} + S \log k,

with S the mean number of repeated values in an example. The negative log-likelihood goes to minus infinity as k goes to
0; a tenfold smaller k lowers it by S log 10 nats.

**A repeated value does harm where k resolves it.** Values on a grid of step h, blurred by k, have the density of the
continuous law times 1 + 2 q + 2 q^4 + ... at the grid's points, with q = exp(-2 pi^2 k^2 / h^2) (Poisson's summation
formula). At h = 2k this factor is 1.014, or 0.014 nats; at h = 3k it is 0.2 nats, at h = 10k 1.4 nats. So a value
counts as repeated if it occurs at least twice, and clearly more often than all other values within 2k of it together.

* A grid of step h <= 2k does not count: the two neighbours of a value are together twice as frequent as the value. We
  compare with four neighbours on either side, since in few rows some are missing by chance.
* Chance pairs of float32 and values of float16 do not count for the same reason. A zero in 70 % of the rows does.
* Values within k/100,000 of one another count as one value where five or more of them stand out in this way. (Of the
  values of a continuous law within 2k, one in 200,000 lies so near.)
* A column whose standard deviation is below k/3 counts as repeated throughout: nine tenths of its variance at eps are
  noise.

The configuration's check of a task is :mod:`scoresde.conf.density`.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data
from scoresde.data.dependence import dependent
from scoresde.data.equal_rows import LEAST, ROWS, VALUES, equal_rows, hashed
from scoresde.data.grids import Grid, common_grid, grid_of, rounding

ENOUGH = 5  # the least number of occurrences of a value on a grid of step <= 2k, or of close values, that count
SIGMAS = 4  # standard deviations by which a value stands out: an image has thousands of pixels and values
CLOSE = 1e-5  # of k: values so near to one another count as one


@dataclass(frozen=True, eq=False)
class Repeats:
    """The repeats in the training part; the columns are the D flattened values of an example.

    Attributes:
        constant: (D,) whether a column is the same in every training example.
        share: (D,) the share of examples whose value in the column repeats; 0 for constant columns, and for columns in
            which fewer than LEAST of the values could repeat.
        value, most: (D,) the most frequent value of the column in data units, and its share; both 0 for columns in
            which too few values repeat.
        still: (D,) whether a column varies, with a standard deviation below a third of the noise at eps.
        follows: for each column that others determine, the numbers of these others; an empty list means the condition.
        copies: the share of rows that equal another one, training and held-out part together; 0 where it is below LEAST
            or due to chance, see :mod:`scoresde.data.equal_rows`.
        rows: the share of examples with a repeated value, or ``copies`` where that is larger.
        per_row: S, the mean number of repeated values in an example.
        grid: the grid of all values, see :func:`scoresde.data.grids.common_grid`; None where nothing repeats.
        steps: for columns that repeat, are not still and lie on a grid of their own, its step in data units.
    """

    constant: Tensor
    share: Tensor
    value: Tensor
    most: Tensor
    still: Tensor
    follows: dict[int, list[int]] = field(default_factory=dict)
    copies: float = 0.0
    rows: float = 0.0
    per_row: float = 0.0
    grid: Grid | None = None
    steps: dict[int, float] = field(default_factory=dict)

    @property
    def repeated(self) -> list[int]:
        """The columns in which a share of at least ``LEAST`` repeats."""
        return (self.share >= LEAST).nonzero()[:, 0].tolist()

    @property
    def degenerate(self) -> bool:
        """True if the data do not vary in some direction: a column is constant, or determined by others."""
        return bool(self.constant.any()) or bool(self.follows)

    @property
    def any(self) -> bool:
        """True if a column repeats, is constant or is determined by others, or rows do repeat."""
        return self.degenerate or bool(self.repeated) or self.copies >= LEAST


def measure(data: Data, blur: float) -> Repeats:
    """Finds what repeats in continuous data.

    Columns are measured on the first rows of the training part, a random subset (ROWS, and at most VALUES values);
    constant columns on all of it, and equal rows on both parts, up to 2**26 values.

    Arguments:
        data: a data set with a training part, and without levels.
        blur: k, the noise's standard deviation at eps in model units.
    """
    flat = data.train.flatten(1)
    constant = flat.amin(0) == flat.amax(0)
    varying = ~constant
    several = int(varying.sum()) > 1
    subset = data.train[: max(2, min(ROWS, VALUES // data.dim))]
    r, x = subset.flatten(1).double(), data.encode(subset.double()).flatten(1)
    single = np.ones(len(x), dtype=bool)
    if several:  # equal rows are no evidence of equal values: only the first of the copies counts
        single[:] = False
        single[np.unique(hashed(r), return_index=True)[1]] = True

    # shares of values that occur twice, or are one of five close ones, in the columns
    ordered = x.sort(0).values
    equal = ordered[1:] == ordered[:-1]
    no = torch.zeros(1, data.dim, dtype=torch.bool)
    seen_twice = (torch.cat([equal, no]) | torch.cat([no, equal])).double().mean(0)
    crowded = ordered[ENOUGH - 1 :] - ordered[: 1 - ENOUGH] <= CLOSE * blur
    crowded = crowded.double().mean(0) if len(crowded) else torch.zeros_like(seen_twice)
    still = varying & (x.std(0, correction=0) < blur / 3)

    # the values of the columns that may repeat, one column after the other
    share, value, most = (torch.zeros(data.dim, dtype=torch.float64) for _ in range(3))
    value[constant], most[constant] = r[0, constant], 1.0
    eps, scale, steps = rounding(data), data.scale.expand(data.shape).flatten(), {}
    repeats_in_row = torch.zeros(len(x), dtype=torch.int64)
    has_repeat = torch.zeros(len(x), dtype=torch.bool)
    for j in (varying & ((seen_twice >= LEAST) | (crowded >= LEAST) | still)).nonzero()[:, 0].tolist():
        own = grid_of(r[:, j].numpy(), eps)
        step, reach, least = 0.0 if own is None else own[1] / float(scale[j]), 2 * blur, 2
        if 0 < step <= reach:
            reach, least = max(reach, 4.001 * step), ENOUGH  # .001 for the rounding of the fourth neighbour
        repeated, value[j], most[j] = atoms(x[:, j], r[:, j], reach, single, least, CLOSE * blur)
        if own is not None and not still[j]:
            steps[j] = own[1]
        repeated = torch.ones_like(repeated) if still[j] else repeated
        share[j] = repeated.double().mean()
        if share[j] >= LEAST:
            repeats_in_row, has_repeat = repeats_in_row + repeated, has_repeat | repeated

    copies = equal_rows(data, int(equal.sum(0).argmin()), blur) if several else 0.0
    found = Repeats(
        constant=constant,
        share=share,
        value=value,
        most=most,
        still=still,
        follows=dependent(data, r, x, share, varying),
        copies=copies,
        rows=max(float(has_repeat.double().mean()), copies),
        per_row=float(repeats_in_row.double().mean()),
    )
    if not found.any:
        return found
    return replace(found, grid=common_grid(data), steps={j: steps[j] for j in found.repeated if j in steps})


def atoms(
    x: Tensor, r: Tensor, reach: float, single: np.ndarray, least: int, close: float
) -> tuple[Tensor, float, float]:
    """Returns which values of a column are repeated, (N,); the most frequent value in data units; and its share.

    A value is repeated if it occurs ``least`` times and more often than all c others within ``reach``, by four standard
    deviations of c. In the tails of float16's values some pairs meet this by chance. So repeated values that occur
    fewer than 5 times count only if they make up a fifth of the occurrences of all values that occur twice or more.

    Five values or more within ``close``, which is far below the noise at eps, count as one: zeros that a computation
    left as 1e-17 or -3e-18 are as repeated as zeros.

    Arguments:
        x, r: (N,) the values in model units and in data units.
        reach, close: distances in model units.
        single: (N,) which rows count; copies of a row do not.
        least: the least number of occurrences of a repeated value.
    """
    values, places = (part.numpy() for part in x.unique(return_inverse=True))
    counts = np.bincount(places[single], minlength=len(values))
    below = np.concatenate([[0], counts.cumsum()])
    around = number_within(values, below, reach)
    repeated = stands_out(counts, around, least)
    rare = repeated & (counts < 5)
    if counts[rare].sum() < 0.2 * counts[counts >= 2].sum():
        repeated &= ~rare
    best = np.bincount(places).argmax()
    value, most = float(r[int((places == best).argmax())]), float((places == best).mean())
    near = number_within(values, below, close)
    crowded = stands_out(near, around, ENOUGH) & ~repeated
    if crowded.any():
        repeated |= crowded
        centre = np.where(crowded, near, 0).argmax()
        at_centre = np.abs(values - values[centre])[places] <= close
        if at_centre.mean() > most:
            value, most = float(r[torch.from_numpy(at_centre)].median()), float(at_centre.mean())
    return torch.from_numpy(repeated[places]), value, most


def number_within(values: np.ndarray, below: np.ndarray, radius: float) -> np.ndarray:
    """Returns how many rows lie within a radius of each of the different values, (V,).

    Arguments:
        values: (V,) in ascending order.
        below: (V + 1,) the number of rows with one of the first 0, 1 ... V values.
    """
    first = np.searchsorted(values, values - radius, side="left")
    return below[np.searchsorted(values, values + radius, side="right")] - below[first]


def stands_out(own: np.ndarray, around: np.ndarray, least: int) -> np.ndarray:
    """Returns whether each value occurs ``least`` times and significantly more often than the others around it.

    Arguments:
        own, around: (V,) how often the value occurs, and how often it or one of its neighbours does.
    """
    others = around - own
    return (own >= least) & (own > others + SIGMAS * np.sqrt(others))
