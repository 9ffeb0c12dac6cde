"""The points that a task works on: the user's own, or held-out data."""

from torch import Tensor

from data import Data, read_points


def points_of(data: Data, path: str | None, count: int | None) -> Tensor:
    """``count`` points in data units, shape (N, *): of the file at ``path`` (all, if count is None), or held-out ones
    (10,000 vectors or 256 pictures, if count is None).
    """
    if path:
        r = read_points(path, data.shape, data.levels, data.labels())
        return r[:count] if count else r
    return data.test[: count or (10_000 if len(data.shape) == 1 else 256)]
