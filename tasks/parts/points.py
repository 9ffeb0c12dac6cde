"""The points that a task works on: the user's own, or held-out data."""

from torch import Tensor

from scoresde.data import Data, read_points, subset
from scoresde.data.arrays import FARTHEST


def points_of(data: Data, path: str | None, count: int | None) -> Tensor:
    """``count`` points in data units, shape (N, *): of the file at ``path`` (all, if count is None), or held-out ones
    (10,000 vectors or 256 pictures, if count is None). Some of a file's are drawn at random, since a file may stand in
    an order; held-out data stand in a random order already.
    """
    if path:
        r = read_points(path, data.shape, data.levels, data.labels())
        refuse_far(data, r, path)
        return subset(r, count)
    return held_out(data, count or (10_000 if len(data.shape) == 1 else 256))


def refuse_far(data: Data, r: Tensor, path: str) -> None:
    """Raises a ValueError where a point's value has no finite square in model units."""
    far = (data.encode(r).abs() > FARTHEST).flatten(1).any(1)  # a NaN is a value to fill in
    if bool(far.any()):
        row = int(far.nonzero()[0])
        raise ValueError(
            f"points={path}: row {row} (rows count from 0) lies more than {FARTHEST:.0e} standard deviations from the "
            f"data's mean: correct it, or leave it out"
        )


def held_out(data: Data, count: int) -> Tensor:
    """``count`` held-out points, or all where there are fewer; ValueError where there is none."""
    if not len(data.test):
        raise ValueError(
            "these data have no held-out examples: type points=FILE for points of your own, or data=NAME for data with "
            "examples"
        )
    return data.test[:count]
