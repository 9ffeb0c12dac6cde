"""Conditions y in tasks: reads y, converts it for networks and for files, and judges samples by their y."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Condition, Data, read_points, subset
from scoresde.data.condition import classes_of
from scoresde.data.files import COLUMN_NAMES
from scoresde.data.numerals import whole
from scoresde.metrics import judge
from scoresde.sde_lib import ScoreFn


def as_written(condition: Condition, y: Tensor) -> dict[str, np.ndarray]:
    """Returns the array ``y`` of an output file by its name: the name of each example's class (N,), an integer if the
    names of all classes are integers; or numbers (N, C) in data units, and with them their names, ``y_columns`` (C,).

    Arguments:
        y: classes (N,), or numbers (N, C).
    """
    if not condition.classes:
        return {"y": y.numpy(), COLUMN_NAMES["y"]: np.array(condition.names)}
    values = [whole(name) for name in condition.names]
    # names such as 007 or 1e+30, and numbers beyond int64, stay words
    numbers = all(str(v) == name and -(2**63) <= v < 2**63 for v, name in zip(values, condition.names, strict=True))
    return {"y": np.array(values if numbers else list(condition.names))[y.numpy()]}


def columns_of(data: Data) -> dict[str, np.ndarray]:
    """Returns the array ``columns`` (D,) of an output file by its name: the names of the columns of vectors; {} where
    they have none.
    """
    names = data.labels() if len(data.shape) == 1 else None
    return {} if names is None else {COLUMN_NAMES["x"]: np.array(names)}


def conditioned_on(score: ScoreFn, y: Tensor | None, rows: slice, device: str, dtype: torch.dtype) -> ScoreFn:
    """Returns the score conditioned on some rows of y (N, condition), or on the one row that all samples share.

    If y is None, returns the score itself.
    """
    return score if y is None else score.given((y if len(y) == 1 else y[rows]).to(device, dtype))


def encoded(data: Data, y: Tensor | None) -> Tensor | None:
    """Encodes y (N,) or (N, C) as the input of networks, (N, condition), or (1, condition) if all rows are equal.

    Returns None if y is None.
    """
    if y is None:
        return None
    return data.condition.encode(y[:1] if bool((y == y[:1]).all()) else y)


def conditions_of(data: Data, path: str | None, count: int, quiet: bool = False) -> Tensor | None:
    """Returns the y of each of the ``count`` points that ``points_of`` returns, (count,) classes or (count, C) numbers;
    None for data without a condition.

    They are the y that ``condition=`` names, or else those of the points: held-out data, or if ``path`` is not None the
    file there. ``quiet`` logs nothing about a file that was read before.

    Raises:
        ValueError: ``condition=`` names neither one y nor one for each point, or the file holds no y.
    """
    condition = data.condition
    if condition is None:
        return None
    if condition.classes and path is None:
        return condition.test[:count]  # which has only the labels that condition= names, if it names any
    if condition.asked is not None:
        if len(condition.asked) not in (1, count):
            raise ValueError(
                f"condition= names {len(condition.asked)} conditions for {count} points; name one for all, or one for "
                f"each"
            )
        return condition.asked.expand(count, *condition.asked.shape[1:])
    if path is None:
        return condition.test[:count]
    if condition.classes or path.lower().endswith(".npy"):
        raise ValueError(
            f"points={path} are points without their y; type condition=VALUE, one for all, or a file of rows"
        )
    try:
        names = list(condition.names)
        values = read_points(path, (len(names),), labels=names, content="conditions", quiet=quiet)
    except ValueError as error:
        raise ValueError(f"{error}; or type condition=VALUE to say the y of all points") from None
    values = subset(values, count)  # the rows that points_of takes
    if len(values) != count:
        raise ValueError(f"points={path} holds y of shape {tuple(values.shape)} for {count} points")
    return values


@dataclass(frozen=True)
class Judged:
    """A classifier's verdict on samples that were drawn class by class.

    Attributes:
        accuracy: the share of the samples of each class that the classifier assigns to it, by class.
        overall: the share of all samples that it assigns to the class for which they were drawn.
        real: the share of held-out data, up to 2,000 of all classes, that it assigns to their class.
        names: the names of the classes.
    """

    accuracy: dict[int, float] = field(default_factory=dict)
    overall: float = 0.0
    real: float = 0.0
    names: tuple[str, ...] = ()

    def metrics(self) -> dict:
        """Returns the metrics by name: the overall shares, and each class's if the samples are of 2 to 20 classes; {}
        without classes.
        """
        if not self.accuracy:
            return {}
        each = {f"label_accuracy_{self.names[k]}": value for k, value in self.accuracy.items()}
        return {
            "label_accuracy": self.overall,
            "label_accuracy_real": self.real,
            **(each if 1 < len(each) <= 20 else {}),
        }


def judged(r: Tensor, y: Tensor | None, data: Data) -> Judged:
    """Returns the verdict on samples r (N, *) in data units, which were drawn for the classes y (N,).

    The classifier is trained on the training data (:mod:`scoresde.metrics.labels`). The verdict is empty if y is None
    or holds numbers instead of classes.
    """
    if y is None or not data.condition.classes:
        return Judged()
    joint = data.joint  # with all classes, even if condition= names one
    labels = classes_of(joint)
    predict = judge(model_units(joint, joint.train), labels.train)
    right = (predict(model_units(joint, r)) == y).double()
    shares = {int(k): float(right[y == k].mean()) for k in y.unique()}
    held_out = slice(2000)  # enough for a standard error of 1 %
    real = float((predict(model_units(joint, joint.test[held_out])) == labels.test[held_out]).double().mean())
    return Judged(shares, float(right.mean()), real, data.condition.names)


def model_units(data: Data, r: Tensor) -> Tensor:
    """Converts points to model units, so that distances give columns of unequal scale the same weight."""
    return data.encode(r.double())


def nearest_data(data: Data, count: int) -> Tensor:
    """Returns the ``count`` examples, training or held-out, whose numbers y are nearest to the first y that
    ``condition=`` names, (count, *) in data units, or all where there are fewer.
    """
    condition = data.condition
    examples, y = torch.cat([data.train, data.test]), torch.cat([condition.train, condition.test])
    far = ((y - condition.asked[0]) / condition.scale).square().sum(1)
    return examples[far.argsort()[:count]]
