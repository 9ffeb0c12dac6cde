"""What tasks do with the y of p(x | y): write it down, compare, and let a classifier judge."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Condition, Data, read_points, subset
from scoresde.data.condition import classes_of
from scoresde.data.numerals import whole
from scoresde.metrics import judge
from scoresde.sde_lib import ScoreFn


def as_written(known: Condition, y: Tensor) -> dict[str, np.ndarray]:
    """y as files hold it: the classes' names, as numbers where they are numbers; or numbers (N, C) in data units."""
    if not known.classes:
        return {"y": y.numpy()}
    values = [whole(name) for name in known.names]
    # words such as 007 or 1e+30, and numbers beyond int64, stay words
    numbers = all(str(v) == name and -(2**63) <= v < 2**63 for v, name in zip(values, known.names, strict=True))
    return {"y": np.array(values if numbers else list(known.names))[y.numpy()]}


def conditioned_on(score: ScoreFn, y: Tensor | None, rows: slice, device: str, dtype: torch.dtype) -> ScoreFn:
    """The score of some rows of y (N, condition), or of the one row that all samples share; as it is without a y."""
    return score if y is None else score.given((y if len(y) == 1 else y[rows]).to(device, dtype))


def encoded(data: Data, y: Tensor | None) -> Tensor | None:
    """y (N,) or (N, C) as networks are told it, (N, condition), or (1, condition) where all rows are equal."""
    if y is None:
        return None
    return data.condition.encode(y[:1] if bool((y == y[:1]).all()) else y)


def conditions_of(data: Data, path: str | None, count: int) -> Tensor | None:
    """The y of the first ``count`` points that a task works on, held-out data or those of the file at ``path``; None
    where there is no y.
    """
    known = data.condition
    if known is None:
        return None
    if known.classes and path is None:
        return known.test[:count]  # of the labels that were asked for, if any were
    if known.asked is not None:
        if len(known.asked) not in (1, count):
            raise ValueError(
                f"condition= names {len(known.asked)} conditions for {count} points; name one for all, or one for each"
            )
        return known.asked.expand(count, *known.asked.shape[1:])
    if path is None:
        return known.test[:count]
    if known.classes or path.lower().endswith(".npy"):
        raise ValueError(
            f"points={path} are points without their y; type condition=VALUE, one for all, or a file of rows"
        )
    try:
        values = read_points(path, (len(known.names),), labels=list(known.names), preferred="y")
    except ValueError as error:
        raise ValueError(f"{error}; or type condition=VALUE to say the y of all points") from None
    values = subset(values, count)  # the rows that points_of takes
    if len(values) != count:
        raise ValueError(f"points={path} holds y of shape {tuple(values.shape)} for {count} points")
    return values


@dataclass(frozen=True)
class Judged:
    """What a classifier says of samples that were asked for by class.

    Attributes:
        accuracy: by class, the share of its samples that it takes for it.
        overall: of all samples.
        real: the same of held-out data, all classes.
        names: of the classes.
    """

    accuracy: dict[int, float] = field(default_factory=dict)
    overall: float = 0.0
    real: float = 0.0
    names: tuple[str, ...] = ()

    def metrics(self) -> dict:
        if not self.accuracy:
            return {}
        each = {f"label_accuracy_{self.names[k]}": value for k, value in self.accuracy.items()}
        return {
            "label_accuracy": self.overall,
            "label_accuracy_real": self.real,
            **(each if 1 < len(each) <= 20 else {}),
        }


def judged(r: Tensor, y: Tensor | None, data: Data) -> Judged:
    """The verdict on samples r (N, *) in data units of the classes y (N,); an empty one where y is no class."""
    if y is None or not data.condition.classes:
        return Judged()
    whole = data.joint  # all classes, also where one was asked for
    every = classes_of(whole)
    judge_of = judge(units(whole, whole.train), every.train)
    right = (judge_of(units(whole, r)) == y).double()
    shares = {int(k): float(right[y == k].mean()) for k in y.unique()}
    held_out = slice(2000)
    real = float((judge_of(units(whole, whole.test[held_out])) == every.test[held_out]).double().mean())
    return Judged(shares, float(right.mean()), real, data.condition.names)


def units(data: Data, r: Tensor) -> Tensor:
    """Model units, in which columns of unequal size count alike."""
    return data.encode(r.double())


def nearest_data(data: Data, count: int) -> Tensor:
    """The examples whose numbers y are nearest to the one that was asked for, (count, *): a slice of the data."""
    known = data.condition
    examples, y = torch.cat([data.train, data.test]), torch.cat([known.train, known.test])
    far = ((y - known.asked[0]) / known.scale).square().sum(1)
    return examples[far.argsort()[:count]]
