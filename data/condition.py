r"""What is known of each example: the y of p(x | y), labels or numbers.

A network is told y as a vector: of labels the unit vector e_k of the class, of numbers their values in model units,
and after either a 1, which says that y is known,

.. math:: y \mapsto (e_k,\ 1) \quad\text{or}\quad \bigl((y - m)/s,\ 1\bigr), \qquad \text{unknown} \mapsto (0, 0).

The unknown y stands for p(x): a network that meets it in training learns both, as classifier-free guidance needs
(Ho and Salimans, arXiv 2207.12598).
"""

import logging
import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde.data.base import Data
from scoresde.data.files import SUFFIXES, open_file, report
from scoresde.data.labels import read_words, text_of
from scoresde.data.numerals import whole
from scoresde.data.points import read_points

log = logging.getLogger(__name__)

LABELS = "labels"
NAMED = 5  # columns that a warning names one by one


@dataclass(frozen=True, eq=False)
class Condition:
    """The y of every example, and of what is asked.

    Attributes:
        train, test: classes (N,) and (M,), the numbers 0 ... K-1, int64; or numbers (N, C) and (M, C) in data units,
            float64.
        names: of the K classes, or of the C numbers.
        classes: whether y is a class.
        shift, scale: (C,), the units of numbers; unused for classes.
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
        """The length of what a network is told."""
        return len(self.names) + 1

    @property
    def titles(self) -> list[str]:
        """The names as pictures show them."""
        return [f"column {name}" if name.isdigit() and not self.classes else name for name in self.names]

    def encode(self, y: Tensor) -> Tensor:
        """y (B,) or (B, C) as a network is told it, (B, width), float64."""
        if self.classes:
            values = torch.nn.functional.one_hot(y, len(self.names)).double()
        else:
            values = (y.double() - self.shift) / self.scale
        return torch.cat([values, torch.ones(len(y), 1, dtype=torch.float64, device=y.device)], dim=1)

    def drawn(self, count: int, seed: int) -> Tensor:
        """The y of ``count`` samples: the rows that were asked for, over and over, or those of training examples in a
        random order.
        """
        numbers = torch.arange(count)
        if self.asked is not None:
            return self.asked[numbers % len(self.asked)]
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed % 2**63))
        return self.train[order[numbers % len(order)]]

    def asking(self, value: Any) -> "Condition":
        """The same with ``condition=value``: a class or several; numbers, one list of them a row, or by their names; or
        the path of a file of such rows.
        """
        if isinstance(value, str) and value.lower().endswith(SUFFIXES):
            rows = self.file_of_classes(value) if self.classes else self.file_rows(value)
        else:
            rows = self.class_rows(value, value) if self.classes else self.number_rows(value)
        if not self.classes:
            self.warn_outside(rows)
        return replace(self, asked=rows)

    def warn_outside(self, rows: Tensor) -> None:
        """Warns once of numbers y (R, C) outside the training part's range, where no network has learnt anything."""
        if not len(self.train):
            return
        said = []
        for name, y, train in zip(self.titles, rows.double().T, self.train.double().T, strict=True):
            low, high = float(train.min()), float(train.max())
            margin = 1e-6 * max(abs(low), abs(high))  # float32 keeps seven digits of what the file holds
            away = torch.maximum(low - y, y - high)
            if count := int((away > margin).sum()):
                others = f" and {count - 1:,} more" if count > 1 else ""
                said.append(
                    f"{name} = {float(y[away.argmax()]):.6g}{others} lie{'s' * (count == 1)} outside the training data "
                    f"({low:.6g} to {high:.6g})"
                )
        if said:
            more = f"; and so of {len(said) - NAMED} more columns" if len(said) > NAMED else ""
            log.warning("condition: %s%s", "; ".join(said[:NAMED]), more)

    def example(self) -> list[str]:
        """A y that can be typed, C numbers: the training part's means, rounded to a tenth of a std or less."""
        if not len(self.train):
            return ["0"] * len(self.names)
        found = []
        for column in self.train.double().T:
            std = float(column.std(correction=0))
            constant = float(column.min()) == float(column.max())
            places = 9 if constant or not std else 1 - math.floor(math.log10(std))
            found.append(f"{round(float(column.mean()), places) + 0.0:.12g}")
        return found

    def class_rows(self, value: Any, said: Any) -> Tensor:
        """The classes (R,) of a label or several; ``said`` is what the user typed for them."""
        wanted, rows = value if isinstance(value, list) else [value], []
        for each in wanted or [""]:
            # true and false are words, and the labels 1 and 0, which a command line does not keep apart
            spelt = [str(each), str(each).lower(), str(int(each))] if isinstance(each, bool) else [str(each)]
            found = next((word for word in spelt if word in self.names), None) or same_number(each, self.names)
            if found is None:
                some = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
                quoted = next((name for name in self.names if "_" in name and name.replace("_", "").isdigit()), None)
                # a command line reads 1_11 as 111
                hint = f", with quotes around digits with underscores: condition=\"'{quoted}'\"" if quoted else ""
                raise ValueError(f"condition={said}: {each} is no label of these data; type one of {some}{hint}")
            rows.append(self.names.index(found))
        return torch.tensor(rows)

    def file_of_classes(self, path: str) -> Tensor:
        """The classes (R,) of a file of labels."""
        source = open_file(path, "condition", "named", ["y"], True)
        rows = self.class_rows(read_words(source, "y"), path)
        report(source.where, [f"{len(rows)} labels", *source.notes])
        return rows

    def file_rows(self, path: str) -> Tensor:
        """The numbers (R, C) of a file."""
        return read_points(path, (len(self.names),), labels=list(self.names), key="condition", preferred="y")

    def number_rows(self, value: Any) -> Tensor:
        count, named = len(self.names), ", ".join(self.names)
        if isinstance(value, dict):
            if {str(name) for name in value} != set(self.names):
                raise ValueError(
                    f"condition={value} must name {named}, each with a number: type "
                    f"'condition={{{', '.join(map(':'.join, zip(self.names, self.example(), strict=True)))}}}'"
                )
            if any(isinstance(each, list | dict) for each in value.values()):
                raise ValueError(
                    f"condition={value} must give each name one number; type a list of rows, or a file of them"
                )
            value = [{str(name): number for name, number in value.items()}[name] for name in self.names]
        rows = value if isinstance(value, list) else [value]
        if rows and not any(isinstance(row, list) for row in rows):
            rows = [[each] for each in rows] if count == 1 else [rows]
        for row in rows or [[]]:
            numeric = isinstance(row, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in row)
            if not numeric or len(row) != count or not all(abs(v) <= sys.float_info.max for v in row):
                numbers = ",".join(self.example())
                example = numbers if count == 1 else f"[{numbers}]"
                raise ValueError(
                    f"condition={value} must be {count} finite number{'s' * (count > 1)}, of {named}: type "
                    f"condition={example}, or the path of a file of rows"
                )
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def single(self) -> Tensor | None:
        """The one y that is asked for, (1,) or (1, C); None for several or none."""
        return None if self.asked is None or not bool((self.asked == self.asked[:1]).all()) else self.asked[:1]

    def name_of(self, y: Tensor) -> str:
        """One y, () or (C,), in words."""
        if self.classes:
            return self.names[int(y)]
        return ", ".join(f"{name} = {value:.4g}" for name, value in zip(self.names, y.tolist(), strict=True))


def same_number(label: object, names: tuple[str, ...]) -> str | None:
    """The class whose name is the same whole number as a label: 1.0 is the class 1, and 1e30 the class 1e+30."""
    text = text_of(label)
    value = None if text is None else whole(text)
    return None if value is None else next((name for name in names if whole(name) == value), None)


class Conditional(Data):
    """p(x | y) of a data set: its examples x, each with its y.

    Arguments:
        joint: the data set.
        key: ``labels``, the classes of its examples; or names or numbers of columns, which then are no part of x.

    Attributes:
        joint: as given.
        condition: the y of every example.
    """

    def __init__(self, joint: Data, key: str | int | list[str | int]):
        self.joint, self.columns = joint, None
        self.class_names, self.notes = joint.class_names, joint.notes
        self.held_out_keys, self.conditional_keys, self.flip = joint.held_out_keys, joint.conditional_keys, joint.flip
        self.names = joint.labels()
        same = {"train_labels": joint.train_labels, "test_labels": joint.test_labels, "shuffle": False}
        if key == LABELS:
            super().__init__(joint.train, joint.test, joint.shift, joint.scale, joint.levels, **same)
            self.condition, self.values = classes_of(joint), torch.cat([joint.train_labels, joint.test_labels]).unique()
            return
        keys = key if isinstance(key, list) else [key]
        if not keys:
            raise ValueError("data.condition=[] names no columns; type data.condition=[NAME], or leave it out")
        train, test, names, self.columns = joint.condition_values(keys)
        if joint.notes:
            self.notes = (*joint.notes, f"y is {', '.join(names)}")
        kept = [j for j in range(joint.dim) if j not in self.columns] if self.columns else None
        if kept is not None and not kept:
            raise ValueError(f"data.condition={keys} names every column: nothing is left to learn; name fewer")
        at = slice(None) if kept is None else kept
        shift, scale = (v if kept is None else v.expand(joint.shape)[at] for v in (joint.shift, joint.scale))
        super().__init__(joint.train[:, at], joint.test[:, at], shift, scale, joint.levels, **same)
        if kept is not None and self.names:
            self.names = [self.names[j] for j in kept]
        units = units_of(joint, self.columns, train, names)
        self.kept, self.condition = kept, Condition(train, test, tuple(names), False, *units)

    def asking(self, value: Any) -> "Conditional":
        """The same data, asked with ``condition=value``; of classes, the examples of those alone."""
        twin = object.__new__(Conditional)
        twin.__dict__ = dict(self.__dict__)
        found = self.condition.asking(value)
        if found.classes:
            parts = {}
            for part in ("train", "test"):
                rows = torch.isin(getattr(found, part), found.asked)
                setattr(twin, part, getattr(self, part)[rows])
                setattr(twin, f"{part}_labels", getattr(self, f"{part}_labels")[rows])
                parts[part] = getattr(found, part)[rows]
            found = replace(found, **parts)
            for part, name in (("train", "training"), ("test", "held-out")):
                if not len(getattr(twin, part)):
                    raise ValueError(
                        f"condition={value}: no {name} example has this label, of which nothing can be learnt or told; "
                        f"choose another, or another data.seed"
                    )
        twin.condition = found
        return twin

    def without(self, columns: list[int]) -> str | None:
        """What to type so that these columns of x, which the joint's file may hold elsewhere, are not learnt."""
        if not self.columns:
            return self.joint.without(columns)
        # the condition may stand beside what data.key= names, but not among it
        return self.joint.without([*self.columns, *(self.kept[j] for j in columns)])

    def given(self, columns: list[int]) -> str | None:
        """What to type so that these columns of x join the condition."""
        if not self.columns or len(columns) == self.dim:
            return None
        return self.joint.given([*self.columns, *(self.kept[j] for j in columns)])

    def true_log_prob(self, r: Tensor, y: Tensor | None = None) -> Tensor | None:
        """The exact log p(r | y) in nats and data units, (B, *) and y (B,) or (B, C) to (B,), of the one y that was
        asked for where none is given; None where nobody knows it.
        """
        if y is None:
            if (y := self.single) is None:
                return None
            y = y.expand(len(r), *y.shape[1:])
        if self.condition.classes:
            return self.joint.class_log_prob(r, self.values[y.cpu()])
        if not self.columns:
            return None
        below = self.joint.marginal_log_prob(y.to("cpu", torch.float64), self.columns)
        if below is None:
            return None
        whole = torch.empty(len(r), self.joint.dim, dtype=torch.float64)
        whole[:, self.kept], whole[:, self.columns] = r.to("cpu", torch.float64), y.to("cpu", torch.float64)
        return self.joint.true_log_prob(whole) - below

    @property
    def single(self) -> Tensor | None:
        """The y that was asked for, (1,) or (1, C), where it was one."""
        return self.condition.single

    def components(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Those of p(x), the joint's, of the columns that are x; or of p(x | y), where one y was asked for."""
        found = self.joint.components()
        if found is None or not self.condition.classes and not self.columns:
            return None
        weights, means, stds = found
        means = means if self.condition.classes else means[:, self.kept]
        if self.single is not None:
            weights = (weights.log() + self.evidence(self.condition.encode(self.single))[0]).softmax(0)
            found = weights > 0
            weights, means, stds = weights[found], means[found], stds[found]
        return weights, means, stds

    def evidence(self, y: Tensor) -> Tensor:
        """log p(y | k) of the components k, up to a constant: y (B, width) as a network is told it, to (B, K)."""
        if self.condition.classes:
            whole = y.new_zeros(len(y), len(self.joint.components()[0]))
            whole[:, self.values.to(y.device)] = y[:, :-1]
            return whole.log()
        _, means, stds = (each.to(y) for each in self.joint.components())
        square = (y[:, None, :-1] - means[:, self.columns]).square().sum(-1)
        return -square / (2 * stds.square()) - len(self.columns) * stds.log()

    def labels(self) -> list[str] | None:
        return self.names

    def fingerprint(self) -> str | None:
        return self.joint.fingerprint()


def classes_of(joint: Data) -> Condition:
    """The classes of a data set's examples."""
    if joint.train_labels is None:
        raise ValueError(
            "data.condition=labels: these data have no labels; type data.condition=[0] to be told a column, or choose "
            "data=digits, images in subfolders of their own, or data=arrays with data.labels=COLUMN"
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
    """The mean and std of the numbers y, (C,): of columns of the joint its own units; of a constant the std 1."""
    if columns:
        return tuple(v.double().expand(joint.shape)[columns] for v in (joint.shift, joint.scale))
    shift, scale = train.mean(0), train.std(0, correction=0)
    constant = train.amin(0) == train.amax(0)
    for name, std in zip(names, scale.tolist(), strict=True):
        if not std < float("inf"):
            raise ValueError(f"data.condition: {name} varies beyond what floating point can square: rescale it")
    return shift.where(~constant, train[0]), scale.where(~constant, torch.ones_like(scale))
