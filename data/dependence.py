"""Columns of continuous data that are linear combinations of others: along such a direction they have no density."""

import math

import torch
from torch import Tensor

from scoresde.data.base import Data
from scoresde.data.equal_rows import LEAST, hashed
from scoresde.data.grids import grid_of, rounding

NEAR = 0.01  # of a column's standard deviation: if other columns leave less of it, the rest may be only rounding
LATER = 16  # columns with details finer than NEAR from which on combinations with such columns are not searched
WIDEST = 1024  # the most columns, with those of the condition, of which the linear dependence is measured
AGREEING = 0.9  # the least share of rows that agree with a combination
WEIGHT = 1e-3  # the weight in standard deviations from which a column of a combination is named


def dependent(data: Data, r: Tensor, x: Tensor, share: Tensor, varying: Tensor) -> dict[int, list[int]]:
    """Returns the columns that are linear combinations of other columns and of the condition, each with these columns.

    A combination counts if nine rows of ten agree with it up to the columns' own rounding, of floating point and of a
    grid (a sum of prices to the cent). Fewer rows than 10 plus twice the number of varying columns, those of y
    included, decide nothing. In images, rare pixels agree by chance: there only columns that do not repeat can be
    combinations.

    Arguments:
        data: the data set, for its condition y and its units.
        r, x: (N, D) the first N training examples in data units and in model units.
        share: (D,) the share of values that repeat.
        varying: (D,) whether a column is not constant.

    Returns:
        by the number of such a column, the numbers of the columns of x in its combination, without those of y.
    """
    y = torch.zeros(len(x), 0, dtype=torch.float64)
    if data.condition is not None:
        y = data.condition.encode(data.condition.train[: len(x)])[:, :-1].cpu()
        y = y[:, y.amin(0) < y.amax(0)]
    columns = varying.nonzero()[:, 0].tolist()
    candidates = {j for j in columns if len(data.shape) == 1 or share[j] < LEAST}
    if len(x) < 2 * (y.shape[1] + len(columns)) + 10:
        return {}
    found = equal_columns(r, columns, candidates)
    columns = [j for j in columns if j not in found]
    width, dim = y.shape[1], y.shape[1] + len(columns)  # places 0 ... width-1 of z are the condition's
    if not 2 <= dim <= WIDEST:
        return found
    count = min(len(x), 2 * dim + 1000)
    values = torch.cat([y, x[:, columns]], 1)[:count]
    spread = values.std(0, correction=0)
    z = (values - values.mean(0)) / spread.where(spread > 0, torch.ones_like(spread))

    # the standard deviation of what the columns before a column leave of it
    left = torch.linalg.qr(z, mode="r").R.diagonal().abs() / math.sqrt(count)
    base = (left >= NEAR).nonzero()[:, 0].tolist()
    near = [i for i in (left < NEAR).nonzero()[:, 0].tolist() if i >= width and columns[i - width] in candidates]
    if not near or not base:
        return found
    slack = torch.zeros_like(z)
    slack[:, width:] = own_rounding(data, r[:count, columns], columns, spread[width:])
    for i, used in combinations(z, slack, base, near).items():
        found[columns[i - width]] = [columns[b - width] for b in used if b >= width]
    return dict(sorted(found.items()))


def equal_columns(r: Tensor, columns: list[int], candidates: set[int]) -> dict[int, list[int]]:
    """Returns the candidates that equal an earlier column, each with that column; these need no algebra."""
    found, first = {}, {}
    for j, code in zip(columns, hashed(r[:, columns].T), strict=True):
        if (same := first.setdefault(int(code), j)) != j and j in candidates:
            found[j] = [same]
    return found


def own_rounding(data: Data, r: Tensor, columns: list[int], spread: Tensor) -> Tensor:
    """Returns the largest rounding errors (N, C) of values r (N, C) of some columns, in standard deviations: two
    roundings of floating point, and half a step of a grid.

    Arguments:
        columns: the numbers of these columns.
        spread: (C,) the columns' standard deviations in model units.
    """
    eps, scale = rounding(data), data.scale.expand(data.shape).flatten()[columns]
    grids = [grid_of(column, eps) for column in r.T.numpy()]
    step = torch.tensor([0.0 if grid is None else grid[1] for grid in grids], dtype=torch.float64)
    return (2 * eps * r.abs() + step / 2) / scale / spread + 1e-9


def combinations(z: Tensor, slack: Tensor, base: list[int], near: list[int]) -> dict[int, list[int]]:
    """Returns which of the columns ``near`` are combinations of others, each with these others.

    Arguments:
        z: (N, C) standardised columns.
        slack: (N, C) their rounding errors.
        base: columns of which the columns before them leave NEAR or more.
        near: columns of which they leave less.
    """
    weights, exact = explained(z, slack, base, near)
    grown, added, found = list(base), 0, {}
    for i, own_weights, is_exact in zip(near, weights.T, exact.tolist(), strict=True):
        used = base
        if not is_exact and 0 < added < LATER:
            used = grown
            own_weights, is_exact = (values[..., 0] for values in explained(z, slack, grown, [i]))
        if is_exact:
            found[i] = [b for b, weight in zip(used, own_weights.abs().tolist(), strict=True) if weight > WEIGHT]
        else:  # a column with a detail finer than NEAR: later columns may be combinations with it
            grown, added = sorted([*grown, i]), added + 1
    return found


def explained(z: Tensor, slack: Tensor, base: list[int], columns: list[int]) -> tuple[Tensor, Tensor]:
    """Returns the least-squares weights of the base for some columns, (B, C), and whether nine rows of ten of each
    column agree up to rounding, (C,).
    """
    weights = torch.linalg.lstsq(z[:, base], z[:, columns], driver="gelsd").solution
    rest = (z[:, columns] - z[:, base] @ weights).abs()
    agree = rest <= slack[:, columns] + slack[:, base] @ weights.abs()
    return weights, agree.double().mean(0) >= AGREEING
