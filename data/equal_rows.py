"""Rows of continuous data that equal another row: copies, which independent draws from a density do not produce."""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data

# the least share of rows, or of values in a column, that counts: below it, log(10) times the share is at most about the
# standard error of an NLL of 1,000 points
LEAST = 0.01
ROWS, VALUES = 10_000, 2**22  # the most rows, and values in them, on which columns are measured
HASHED = 2**26  # the most values among which equal rows are searched
LOW = 16  # the most dimensions in which equal rows on a grid may count as copies


def equal_rows(data: Data, finest: int, blur: float) -> float:
    """Returns the share of rows that equal another row; 0 where it is below LEAST, or they are equal by chance, on a
    grid.

    A copied row repeats all of its values. So we count the rows that agree in all columns but ``finest``: among copies
    they are as many as the rows that agree in all columns, on a grid many more. On a grid, equal rows count as copies
    only if at most a tenth of them is expected by chance, if there are at most LOW dimensions, and if the noise at eps
    resolves neighbouring points of the grid.

    Arguments:
        finest: the number of the column with the most different values.
        blur: k, the standard deviation of the noise at eps in model units.
    """
    most = max(2, HASHED // data.dim)
    rows = torch.cat([data.train[:most].flatten(1), data.test[: max(0, most - len(data.train))].flatten(1)])
    code = hashed(rows)
    times = occurrences(code)
    copied = times > 1
    share = float(copied.mean())
    if share < LEAST:
        return 0.0
    # for each row, how often its value in the column finest occurs, and how often its other values together
    own, but_finest = occurrences(rows[:, finest].numpy()), occurrences(code - hashed(rows, finest))
    chance = -np.expm1(-(but_finest - times) * own / len(rows))  # that one of these rows agrees in finest too
    if share - float(chance.mean()) < LEAST:
        return 0.0
    times, own, but_finest = times[copied], own[copied], but_finest[copied]
    if np.median(but_finest / times) <= 1.5:  # no grid
        return share
    by_chance = (but_finest - times) * own / len(rows)
    if data.dim > LOW or np.median(by_chance / (times - 1)) > 0.1:
        return 0.0
    # how many rows lie within 2k of some of the copies, in every coordinate
    probes = np.flatnonzero(copied)[:256]
    x, probe = (data.encode(rows[at].double().unflatten(1, data.shape)).flatten(1) for at in (slice(ROWS), probes))
    near = (torch.cdist(probe, x, p=math.inf) <= 2 * blur).sum(1).numpy() * (len(rows) / len(x))
    return share if np.median(near / times[: len(probes)]) < 2 else 0.0


def occurrences(values: np.ndarray) -> np.ndarray:
    """Returns for each of the values (N,) how often it occurs, (N,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[places]


def hashed(rows: Tensor, column: int | None = None) -> np.ndarray:
    """Returns a 64-bit number for each row (N, D), equal for equal rows: a sum of one term for each column, or the term
    of ``column`` alone.
    """
    weights = np.random.default_rng(0).integers(0, 2**64, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    if column is not None:
        rows, weights = rows[:, column : column + 1], weights[column]
    codes = np.empty(len(rows), dtype=np.uint64)
    for first in range(0, len(rows), step := max(1, VALUES // rows.shape[1])):
        bits = (rows[first : first + step].double() + 0.0).numpy().view(np.uint64)  # + 0.0: -0 equals 0
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's rounds
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        codes[first : first + step] = ((bits ^ (bits >> np.uint64(31))) * weights).sum(1, dtype=np.uint64)
    return codes
