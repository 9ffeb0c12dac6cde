"""The points that a task works on: those of the user's file, or held-out data."""

from torch import Tensor

from scoresde.data import Data, order, read_points, subset
from scoresde.data.examples import FARTHEST


def points_of(data: Data, path: str | None, count: int | None, quiet: bool = False) -> Tensor:
    """Returns ``count`` points in data units, (N, *), or all where there are fewer.

    They are drawn at random from the file at ``path``, since a file may be sorted; all of them if count is None.
    Without a path they are the first held-out data, which are in a random order; 10,000 vectors or 256 images if count
    is None. ``quiet`` logs nothing about a file that was read before.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, has another shape or a value too far from the data; or there are no
            held-out data.
    """
    if path:
        r = read_points(path, data.shape, data.levels, data.labels(), quiet=quiet)
        refuse_far(data, r, path)
        return subset(r, count)
    return held_out(data, count or (10_000 if len(data.shape) == 1 else 256))


def refuse_far(data: Data, r: Tensor, path: str) -> None:
    """Raises a ValueError if a value of a point is too large in model units for a finite square."""
    far = (data.encode(r).abs() > FARTHEST).flatten(1).any(1)  # NaN, a value to fill in, passes
    if bool(far.any()):
        row = int(far.nonzero()[0])
        raise ValueError(
            f"points={path}: row {row} (rows count from 0) lies more than {FARTHEST:.0e} standard deviations from the "
            f"data's mean: correct it, or leave it out"
        )


def held_out(data: Data, count: int) -> Tensor:
    """Returns ``count`` held-out points, or all where there are fewer; raises a ValueError where there is none."""
    if not len(data.test):
        raise ValueError(
            "these data have no held-out examples: type points=FILE for points of your own, or data=NAME for data with "
            "examples"
        )
    return data.test[:count]


def shuffled(r: Tensor, y: Tensor | None, count: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Returns up to ``count`` of the points r (N, *) in a random order, since a user's points may be sorted, and their
    y: the same rows of y (N, *), the one row that all points share, or None.

    :func:`scoresde.data.subset` chooses the same points and keeps them in the user's order.
    """
    places = order(len(r))[:count]
    return r[places], y if y is None or len(y) == 1 else y[places]
