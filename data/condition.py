r"""The condition y of every example, a class or numbers, for models of p(x | y), and its encoding for a network.

A network takes y as a vector: a class k as the unit vector e_k, or numbers in model units (their shift m, their scale
s). A last entry of 1 says that y is given:

.. math:: y \mapsto (e_k,\ 1) \quad\text{or}\quad \bigl((y - m)/s,\ 1\bigr), \qquad \text{none} \mapsto (0, 0).

The zero vector stands for p(x): a network that is trained on both learns p(x | y) and p(x), as classifier-free
guidance needs (Ho and Salimans, arXiv 2207.12598).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde.data.base import Data
from scoresde.data.requested import requested_classes, requested_numbers, warn_of_extrapolation

LABELS = "labels"


@dataclass(frozen=True, eq=False)
class Condition:
    """The y of every example, and the y that the config key ``condition`` names.

    Attributes:
        train, test: the y of the N training and the M held-out examples: classes (N,) and (M,), indices into ``names``,
            int64; or numbers (N, C) and (M, C) in data units, float64.
        names: the names of the K classes, or of the C numbers.
        classes: whether y is a class.
        shift, scale: (C,), those of the model units (y - shift)/scale of numbers; unused for classes.
        asked: the rows of y that ``condition=`` names, (R,) or (R, C); None where it names none.
    """

    train: Tensor
    test: Tensor
    names: tuple[str, ...]
    classes: bool
    shift: Tensor
    scale: Tensor
    asked: Tensor | None = None

    @property
    def width(self) -> int:
        """The length of the vector that a network takes."""
        return len(self.names) + 1

    @property
    def titles(self) -> list[str]:
        """The names as pictures show them."""
        return [f"column {name}" if name.isdigit() and not self.classes else name for name in self.names]

    @property
    def single(self) -> Tensor | None:
        """The one y that ``condition=`` names, (1,) or (1, C); None where it names different ones or none."""
        return None if self.asked is None or not bool((self.asked == self.asked[:1]).all()) else self.asked[:1]

    def encode(self, y: Tensor) -> Tensor:
        """Returns y (B,) or (B, C) as the vector that a network takes, (B, width), float64."""
        if self.classes:
            values = torch.nn.functional.one_hot(y, len(self.names)).double()
        else:
            values = (y.double() - self.shift) / self.scale
        return torch.cat([values, torch.ones(len(y), 1, dtype=torch.float64, device=y.device)], dim=1)

    def drawn(self, count: int, seed: int) -> Tensor:
        """Returns the y of ``count`` samples, (count,) or (count, C).

        These are the rows that ``condition=`` names, repeated in turn. Where it names none, they are the y of the
        training examples in a random order, repeated when all are used.
        """
        index = torch.arange(count)
        if self.asked is not None:
            return self.asked[index % len(self.asked)]
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed % 2**63))
        return self.train[order[index % len(order)]]

    def asking(self, value: Any) -> "Condition":
        """Returns a copy with ``condition=value``, and warns of numbers outside the range of the training data.

        Arguments:
            value: a class or a list of classes; numbers, a list of rows of numbers, or numbers by name; or the path of
                a file with a class or a row of numbers for each sample.

        Raises:
            FileNotFoundError, ValueError: the value names no class of these data, or not C finite numbers.
        """
        if self.classes:
            return replace(self, asked=requested_classes(value, self.names))
        rows = requested_numbers(value, self.names, self.train)
        warn_of_extrapolation(rows, self.titles, self.train)
        return replace(self, asked=rows)

    def name_of(self, y: Tensor) -> str:
        """Returns one y, () or (C,), in words."""
        if self.classes:
            return self.names[int(y)]
        return ", ".join(f"{name} = {value:.4g}" for name, value in zip(self.names, y.tolist(), strict=True))


def classes_of(joint: Data) -> Condition:
    """Returns the condition of a data set (x, y) whose y is the class label of each example.

    The classes are the labels that occur in the training or the held-out examples.

    Raises:
        ValueError: the data have no labels, or all training examples have the same one.
    """
    if joint.train_labels is None:
        raise ValueError(
            "data.condition=labels: these data have no labels; type data.condition=[0] to condition on a column, or "
            "choose data=digits, images in subfolders of their own, or data=arrays with data.labels=COLUMN"
        )
    values = torch.cat([joint.train_labels, joint.test_labels]).unique()
    train, test = (torch.searchsorted(values, part) for part in (joint.train_labels, joint.test_labels))
    names = tuple(joint.class_names[int(v)] if joint.class_names else str(int(v)) for v in values)
    if len(names) < 2 or len(train.unique()) < 2:
        raise ValueError(
            f"data.condition=labels: all training examples have the label {names[int(train[0])]}, which tells nothing"
        )
    none = torch.empty(0, dtype=torch.float64)
    return Condition(train, test, names, True, none, none)


def units_of(joint: Data, columns: list[int] | None, train: Tensor, names: list[str]) -> tuple[Tensor, Tensor]:
    """Returns the shift and scale of the numbers y, (C,), float64.

    Columns of the joint keep the joint's shift and scale. Numbers that are no columns of it get the mean and the
    standard deviation of their training examples; a constant gets its value and the scale 1.

    Arguments:
        joint: the data set of which y is a part.
        columns: the joint's columns that are y; None or empty for numbers that are no columns.
        train: (N, C), the y of the training examples.
        names: the names of the C numbers, for an error.

    Raises:
        ValueError: numbers vary so far that their standard deviation is infinite.
    """
    if columns:
        return tuple(v.double().expand(joint.shape)[columns] for v in (joint.shift, joint.scale))
    shift, scale = train.mean(0), train.std(0, correction=0)
    constant = train.amin(0) == train.amax(0)
    for name, std in zip(names, scale.tolist(), strict=True):
        if not std < float("inf"):
            raise ValueError(f"data.condition: {name} varies beyond what floating point can square: rescale it")
    return shift.where(~constant, train[0]), scale.where(~constant, torch.ones_like(scale))
