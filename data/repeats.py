r"""Values that repeat among continuous data, of which a law with a density shows none.

Two draws from a density are equal with probability 0, in float32 with about 1e-7. Where a value, a row or a direction
comes again, the law has mass on a set of volume 0, and no density p. A model that perturbs its data with noise finds
the density of the perturbed law instead, with noise of the standard deviation k = sigma(eps) / alpha(eps) in model
units: each repeated value becomes a peak of height proportional to 1/k, and

.. math:: \mathbb E[-\log p_k(x)] = \text{const} + S \log k,

with S the mean number of repeated values in an example. The negative log-likelihood goes to minus infinity with k; a
tenfold smaller k takes S log 10 nats off.

**A repeated value does harm where k resolves it.** Values on a grid of step h, blurred by k, have the density of the
continuous law times 1 + 2 exp(-2 pi^2 k^2 / h^2) at the grid's points (Poisson's summation formula; the next term is
its fourth power). At h = 2k this is 1.014, 0.014 nats; at h = 3k 0.2 nats, at h = 10k 1.4. So a value counts as
repeated if it occurs at least twice, and clearly more often than all other values within 2k of it together. A grid of
step h <= 2k passes: its neighbours on either side are as frequent together as two such values; four on either side are
asked, of which chance leaves some out where rows are few. Chance pairs of float32 and values of float16 pass for the
same reason, and a zero in 70 % of the rows does not. Values that differ by less than k/100,000 count as one value where
five of them or more stand out so from those within 2k, of which a continuous law has one in 200,000 so near.

A column whose standard deviation is below k/3 counts as repeated throughout: nine tenths of its variance at eps are
noise.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data

LEAST = 0.01  # of rows: below it log(10) times the share is less than the standard error of an NLL of 1,000 points
ROWS, VALUES = 10_000, 2**22  # of the subset on which columns are measured
ENOUGH = 5  # times that a value on a grid of step <= 2k occurs before it may stand out by more than chance
SIGMAS = 4  # of the number of neighbours, by which a value stands out: a picture has thousands of pixels and values
HASHED = 2**26  # values, among which equal rows are looked for
FINEST = 2**20  # steps in a column's range: a finer grid is floating point's own
MOST_STEPS = 65536  # that ``data.levels`` takes
CLOSE = 1e-5  # of k: values so near to each other are one to the noise at eps
LOW = 16  # dimensions: above them a grid that k does not resolve shows no equal rows by chance
NEAR = 0.01  # what other columns leave of a column's standard deviation, from where on it may be one of rounding
LATER = 16  # columns with details finer than NEAR, in which further ones are looked for
WIDEST = 1024  # columns, of which the linear dependence is measured


@dataclass(frozen=True, eq=False)
class Repeats:
    """What repeats in the training part, D values an example, flattened.

    Attributes:
        constant: (D,) whether a value is the same in every training example.
        share: (D,) the share of examples whose value repeats; 0 for constant ones.
        value, most: (D,) the most frequent value in data units, and its share.
        still: (D,) whether a value varies by less than a third of the noise at eps.
        follows: columns that others determine, by number: those others; an empty list stands for the condition.
        copies: the share of rows that equal another one, training and held-out part together.
        rows: the share of examples with a repeated value, or the copies' where it is larger.
        per_row: S, the mean number of repeated values in an example.
        grid: what :func:`whole` finds.
        steps: of columns that repeat and lie on a grid of their own, its step in data units.
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
    grid: "Grid | None" = None
    steps: dict[int, float] = field(default_factory=dict)

    @property
    def repeated(self) -> list[int]:
        """The columns of which at least ``LEAST`` repeats."""
        return (self.share >= LEAST).nonzero()[:, 0].tolist()

    @property
    def degenerate(self) -> bool:
        """Whether some direction of the data does not vary at all."""
        return bool(self.constant.any()) or bool(self.follows)

    @property
    def any(self) -> bool:
        return self.degenerate or bool(self.repeated) or self.copies >= LEAST


@dataclass(frozen=True)
class Grid:
    """All values as r = low + k step with whole numbers k.

    Attributes:
        low, step: (D,) for vectors, of one entry for images, in data units.
        levels: the largest k plus 1.
    """

    low: list[float]
    step: list[float]
    levels: int

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(each == 1 for each in self.step) and all(each == math.floor(each) for each in self.low)

    @property
    def counts(self) -> bool:
        """Whether the values are the whole numbers k themselves."""
        return self.whole and all(each == 0 for each in self.low)


def measure(data: Data, blur: float) -> Repeats:
    """What repeats in continuous data.

    Columns are measured on a prefix of the training part, which stands in a random order; constant columns on all of
    it, and equal rows on both parts, up to 2**26 values.

    Arguments:
        data: a data set with a training part, and without levels.
        blur: k, the noise's standard deviation at eps in model units.
    """
    flat = data.train.flatten(1)
    constant = flat.amin(0) == flat.amax(0)
    subset = data.train[: max(2, min(ROWS, VALUES // data.dim))]
    r, x = subset.flatten(1).double(), data.encode(subset.double()).flatten(1)
    varying = ~constant
    ordered = x.sort(0).values
    equal = ordered[1:] == ordered[:-1]
    no = torch.zeros(1, data.dim, dtype=torch.bool)
    seen_twice = (torch.cat([equal, no]) | torch.cat([no, equal])).double().mean(0)
    crowded = ordered[ENOUGH - 1 :] - ordered[: 1 - ENOUGH] <= CLOSE * blur
    crowded = crowded.double().mean(0) if len(crowded) else torch.zeros_like(seen_twice)
    still = varying & (x.std(0, correction=0) < blur / 3)
    share, value, most = (torch.zeros(data.dim, dtype=torch.float64) for _ in range(3))
    value[constant], most[constant] = r[0, constant], 1.0
    # equal rows are told apart from equal values: of a row that was copied one counts
    single = np.ones(len(x), dtype=bool)
    if int(varying.sum()) > 1:
        single[:] = False
        single[np.unique(hashed(r), return_index=True)[1]] = True
    eps, scale, steps = rounding(data), data.scale.expand(data.shape).flatten(), {}
    hits = torch.zeros(len(x), dtype=torch.int64)
    struck = torch.zeros(len(x), dtype=torch.bool)
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
            hits, struck = hits + repeated, struck | repeated
    finest = int(equal.sum(0).argmin())
    copies = equal_rows(data, finest, blur) if int(varying.sum()) > 1 else 0.0
    found = Repeats(
        constant,
        share,
        value,
        most,
        still,
        dependent(data, r, x, share, varying),
        copies,
        max(float(struck.double().mean()), copies),
        float(hits.double().mean()),
    )
    if not found.any:
        return found
    return replace(found, grid=whole(data), steps={j: steps[j] for j in found.repeated if j in steps})


def atoms(
    x: Tensor, r: Tensor, reach: float, single: np.ndarray, least: int, close: float
) -> tuple[Tensor, float, float]:
    """Which of the values x (N,) in model units are repeated, (N,), and the most frequent one of r (N,) with its share.

    A value is repeated if it occurs ``least`` times and more often than all c others within ``reach``, by four standard
    deviations of c; rows that are not ``single`` (N,) do not count. In the tails of float16's values some pairs are so
    by chance: values of a multiplicity below 5 count together, if they are a fifth of all that occur twice.

    Five values or more within ``close``, which is far below the noise at eps, count as one: zeros that a computation
    left as 1e-17 or -3e-18 are as repeated as zeros.
    """
    values, places = (part.numpy() for part in x.unique(return_inverse=True))
    counts = np.bincount(places[single], minlength=len(values))
    below = np.concatenate([[0], counts.cumsum()])

    def within(radius: float) -> np.ndarray:
        """How many values lie within a radius of each."""
        first = np.searchsorted(values, values - radius, side="left")
        return below[np.searchsorted(values, values + radius, side="right")] - below[first]

    def stands_out(own: np.ndarray, least: int) -> np.ndarray:
        others = around - own
        return (own >= least) & (own > others + SIGMAS * np.sqrt(others))

    around = within(reach)
    repeated = stands_out(counts, least)
    few = repeated & (counts < 5)
    if counts[few].sum() < 0.2 * counts[counts >= 2].sum():
        repeated &= ~few
    best = np.bincount(places).argmax()
    value, most = float(r[int((places == best).argmax())]), float((places == best).mean())
    near = within(close)
    crowded = stands_out(near, ENOUGH) & ~repeated
    if crowded.any():
        repeated |= crowded
        centre = np.where(crowded, near, 0).argmax()
        some = np.abs(values - values[centre])[places] <= close
        if some.mean() > most:
            value, most = float(r[torch.from_numpy(some)].median()), float(some.mean())
    return torch.from_numpy(repeated[places]), value, most


def equal_rows(data: Data, finest: int, blur: float) -> float:
    """The share of rows that equal another row; 0 where they are equal by chance, on a grid.

    A copied row brings all of its values along. So it is asked how many rows agree in all columns but ``finest``, the
    one with most values: of copies as many as agree in all of them, of a grid many more. Where the grid is fine, a few
    of those may agree by chance with the copies; then their expected number decides, and whether the noise at eps takes
    neighbouring points of the grid apart.
    """
    most = max(2, HASHED // data.dim)
    rows = torch.cat([data.train[:most].flatten(1), data.test[: max(0, most - len(data.train))].flatten(1)])
    code = hashed(rows)
    times = occurrences(code)
    copied = times > 1
    share = float(copied.mean())
    if share < LEAST:
        return 0.0
    own, but_finest = occurrences(rows[:, finest].numpy()), occurrences(code - hashed(rows, finest))
    chance = -np.expm1(-(but_finest - times) * own / len(rows))  # of agreeing in the last column too
    if share - float(chance.mean()) < LEAST:
        return 0.0
    times, own, but_finest = times[copied], own[copied], but_finest[copied]
    if np.median(but_finest / times) <= 1.5:
        return share
    by_chance = (but_finest - times) * own / len(rows)
    if data.dim > LOW or np.median(by_chance / (times - 1)) > 0.1:
        return 0.0
    some = np.flatnonzero(copied)[:256]
    x, probe = (data.encode(rows[at].double().unflatten(1, data.shape)).flatten(1) for at in (slice(ROWS), some))
    near = (torch.cdist(probe, x, p=math.inf) <= 2 * blur).sum(1).numpy() * (len(rows) / len(x))
    return share if np.median(near / times[: len(some)]) < 2 else 0.0


def occurrences(values: np.ndarray) -> np.ndarray:
    """How often each of the values (N,) occurs, (N,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[places]


def hashed(rows: Tensor, column: int | None = None) -> np.ndarray:
    """A 64-bit number for each row (N, D), equal for equal rows: a sum over columns; or the term of one column."""
    weights = np.random.default_rng(0).integers(0, 2**64, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    if column is not None:
        rows, weights = rows[:, column : column + 1], weights[column]
    found = np.empty(len(rows), dtype=np.uint64)
    for first in range(0, len(rows), step := max(1, VALUES // rows.shape[1])):
        bits = (rows[first : first + step].double() + 0.0).numpy().view(np.uint64)  # + 0.0: -0 equals 0
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's rounds
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        found[first : first + step] = ((bits ^ (bits >> np.uint64(31))) * weights).sum(1, dtype=np.uint64)
    return found


def dependent(data: Data, r: Tensor, x: Tensor, share: Tensor, varying: Tensor) -> dict[int, list[int]]:
    """The columns that are linear combinations of other columns and of the condition, up to rounding.

    A combination counts if nine rows of ten agree with it to within what the columns' own rounding leaves open, of
    floating point and of a grid (a sum of prices to the cent). Nothing can be said of fewer than 2D + 10 rows. Of
    pictures, whose rare pixels agree by chance, only columns that do not repeat are asked.

    Arguments:
        r, x: (N, D) in data units and in model units.
        share: (D,) of the values that repeat.
        varying: (D,) whether a column is not constant.
    """
    y = torch.zeros(len(x), 0, dtype=torch.float64)
    if data.condition is not None:
        y = data.condition.encode(data.condition.train[: len(x)])[:, :-1].cpu()
        y = y[:, y.amin(0) < y.amax(0)]
    columns = varying.nonzero()[:, 0].tolist()
    asked = {j for j in columns if len(data.shape) == 1 or share[j] < LEAST}
    if len(x) < 2 * (y.shape[1] + len(columns)) + 10:
        return {}
    found, first = {}, {}
    for j, code in zip(columns, hashed(r[:, columns].T), strict=True):  # equal columns need no algebra
        if (same := first.setdefault(int(code), j)) != j and j in asked:
            found[j] = [same]
    columns = [j for j in columns if j not in found]
    known, dim = y.shape[1], y.shape[1] + len(columns)
    if not 2 <= dim <= WIDEST:
        return found
    count = min(len(x), 2 * dim + 1000)
    values = torch.cat([y, x[:, columns]], 1)[:count]
    spread = values.std(0, correction=0)
    z = (values - values.mean(0)) / spread.where(spread > 0, torch.ones_like(spread))
    left = torch.linalg.qr(z, mode="r").R.diagonal().abs() / math.sqrt(count)
    base = (left >= NEAR).nonzero()[:, 0].tolist()
    near = [i for i in (left < NEAR).nonzero()[:, 0].tolist() if i >= known and columns[i - known] in asked]
    if not near or not base:
        return found
    eps, scale = rounding(data), data.scale.expand(data.shape).flatten()[columns]
    steps = [grid_of(column, eps) for column in r[:count, columns].T.numpy()]
    step = torch.tensor([0.0 if each is None else each[1] for each in steps], dtype=torch.float64)
    # of one standard deviation: two roundings of floating point, and half a step
    slack = torch.zeros_like(z)
    slack[:, known:] = (2 * eps * r[:count, columns].abs() + step / 2) / scale / spread[known:] + 1e-9

    def explained(some: list[int]) -> tuple[Tensor, Tensor]:
        """The weights of the base in columns ``some``, and which of these it explains."""
        weights = torch.linalg.lstsq(z[:, base], z[:, some], driver="gelsd").solution
        rest = (z[:, some] - z[:, base] @ weights).abs()
        return weights, (rest <= slack[:, some] + slack[:, base] @ weights.abs()).double().mean(0) >= 0.9

    weights, done = explained(near)
    start, later = list(base), 0
    for i, column, is_done in zip(near, weights.T, done.tolist(), strict=True):
        stood = start
        if not is_done and 0 < later < LATER:
            (column, is_done), stood = (each[..., 0] for each in explained([i])), list(base)
        if is_done:
            matter = [b for b, weight in zip(stood, column.abs().tolist(), strict=True) if weight > 1e-3]
            found[columns[i - known]] = [columns[b - known] for b in matter if b >= known]
        else:  # a detail finer than NEAR, from which others may be made
            base, later = sorted([*base, i]), later + 1
    return dict(sorted(found.items()))


def whole(data: Data) -> Grid | None:
    """The grid on which all values of both parts lie, column by column for vectors and one for images; None without.

    Of data of p(x | y) it is the joint's, whose columns ``data.levels`` is for.
    """
    data = getattr(data, "joint", data)
    rows, eps = torch.cat([data.train, data.test]).double(), rounding(data)
    low, high = float(rows.min()), float(rows.max())
    if low >= 0 and high < MOST_STEPS and bool((rows == rows.floor()).all()):
        return Grid([0.0], [1.0], max(2, int(high) + 1))
    columns = rows.flatten(1).T.numpy() if len(data.shape) == 1 else [rows.flatten().numpy()]
    found = []
    for column in columns:
        each = grid_of(column, eps)
        if each is None:
            return None
        found.append((*each, round((column.max() - each[0]) / each[1]) + 1))
    lows, steps, counts = zip(*found, strict=True)
    return Grid(list(lows), list(steps), max(2, *counts)) if max(counts) <= MOST_STEPS else None


def rounding(data: Data) -> float:
    """The relative size of a rounding error in the type that holds the examples."""
    return torch.finfo(data.train.dtype).eps if data.train.is_floating_point() else 0.0


def grid_of(values: np.ndarray, eps: float) -> tuple[float, float] | None:
    """(low, step) with all values low + k step, k whole, to within rounding errors of relative size eps; None without.

    The smallest gap between two values is tried first; then whole numbers and decimals.
    """
    values = np.unique(values)
    low, size = float(values[0]), float(np.abs(values[[0, -1]]).max())
    if values[0] == values[-1]:
        return low, 1.0
    gaps = np.diff(values)
    gaps = gaps[gaps > 16 * eps * size]
    if not len(gaps):
        return None
    spread, finest = float(values[-1]) - low, float(gaps.min())
    if spread / finest > FINEST:
        return None
    step = spread / round(spread / finest)  # the rounding of the one gap is divided by their number
    if on_grid(values, low, step, eps * size):
        return low, step
    for step in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6):
        if size / step * eps > 0.01 or spread / step > FINEST:
            break
        # a coarser step than the finest gap has several values on one point
        if step <= 1.02 * finest and on_grid(values, low, step, eps * size):
            return low, step
    return None


def on_grid(values: np.ndarray, low: float, step: float, rounding: float) -> bool:
    steps = (values - low) / step
    return bool((np.abs(steps - np.round(steps)) <= 0.01 + 4 * rounding / step).all())
