"""The y that ``condition=`` names: classes or numbers, typed or from a file."""

import logging
import math
import sys
from typing import Any

import torch
from torch import Tensor

from scoresde.data.files import SUFFIXES, open_file, report
from scoresde.data.labels import read_words, text_of
from scoresde.data.numerals import whole
from scoresde.data.points import read_points

log = logging.getLogger(__name__)

NAMED = 5  # columns that a warning names one by one


def requested_classes(value: Any, names: tuple[str, ...]) -> Tensor:
    """Returns the classes that a label, a list of labels or the path of a file of labels names.

    Arguments:
        value: what the user typed.
        names: the names of the classes.

    Returns:
        the classes (R,), int64 indices into ``names``.

    Raises:
        ValueError: a label is none of the data's, or the file cannot be read.
        FileNotFoundError: there is no such file.
        ImportError: a .parquet file without pyarrow.
    """
    if not is_path(value):
        return class_rows(value, value, names)
    source = open_file(value, "condition", "named", ["y"], True)
    rows = class_rows(read_words(source, "y"), value, names)
    report(source.where, [f"{len(rows)} labels", *source.notes])
    return rows


def requested_numbers(value: Any, names: tuple[str, ...], train: Tensor) -> Tensor:
    """Returns the numbers (R, C), float64, that a number, a list, a list of rows, a dict by name or the path of a file
    of rows names.

    Arguments:
        value: what the user typed.
        names: the names of the C numbers.
        train: (N, C), the numbers of the training examples, from which an error makes its example.

    Raises:
        ValueError: a row does not hold C finite numbers, a dict has other names, or the file cannot be read.
        FileNotFoundError: there is no such file.
        ImportError: a .parquet file without pyarrow.
    """
    if is_path(value):
        return read_points(value, (len(names),), labels=list(names), key="condition", content="conditions")
    count, named = len(names), ", ".join(names)
    if isinstance(value, dict):
        value = by_name(value, names, train)
    rows = value if isinstance(value, list) else [value]
    if rows and not any(isinstance(row, list) for row in rows):  # a flat list: one number a row, or one row
        rows = [[number] for number in rows] if count == 1 else [rows]
    for row in rows or [[]]:
        numeric = isinstance(row, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in row)
        if not numeric or len(row) != count or not all(abs(v) <= sys.float_info.max for v in row):
            numbers = ",".join(typical(train, count))
            example = numbers if count == 1 else f"[{numbers}]"
            raise ValueError(
                f"condition={value} must be {count} finite number{'s' * (count > 1)}, of {named}: type "
                f"condition={example}, or the path of a file of rows"
            )
    return torch.tensor(rows, dtype=torch.float64)


def is_path(value: Any) -> bool:
    """Returns whether ``condition=`` names a file: a text that ends as one, even if it is a label too."""
    return isinstance(value, str) and value.lower().endswith(SUFFIXES)


def class_rows(value: Any, typed: Any, names: tuple[str, ...]) -> Tensor:
    """Returns the classes (R,), int64 indices into ``names``, of a label or a list of labels.

    Arguments:
        value: the label or labels.
        typed: what the user typed for them, which may be the path of a file, for messages.
        names: the names of the classes.
    """
    wanted, rows = value if isinstance(value, list) else [value], []
    for label in wanted or [""]:
        # true, typed or in a file, may mean the class True, true or 1
        spelt = [str(label), str(label).lower(), str(int(label))] if isinstance(label, bool) else [str(label)]
        name = next((word for word in spelt if word in names), None) or same_number(label, names)
        if name is None:
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            quoted = next((name for name in names if "_" in name and name.replace("_", "").isdigit()), None)
            # a command line reads 1_11 as 111
            hint = f", with quotes around digits with underscores: condition=\"'{quoted}'\"" if quoted else ""
            raise ValueError(f"condition={typed}: {label} is no label of these data; type one of {shown}{hint}")
        rows.append(names.index(name))
    return torch.tensor(rows)


def same_number(label: object, names: tuple[str, ...]) -> str | None:
    """Returns the class whose name is the same whole number as a label: 1.0 is the class 1, 1e30 the class 1e+30."""
    text = text_of(label)
    value = None if text is None else whole(text)
    return None if value is None else next((name for name in names if whole(name) == value), None)


def by_name(value: dict, names: tuple[str, ...], train: Tensor) -> list:
    """Returns the numbers of a dict by name, in the order of the names."""
    if {str(name) for name in value} != set(names):
        example = ", ".join(map(":".join, zip(names, typical(train, len(names)), strict=True)))
        raise ValueError(
            f"condition={value} must name {', '.join(names)}, each with a number: type 'condition={{{example}}}'"
        )
    if any(isinstance(each, list | dict) for each in value.values()):
        raise ValueError(f"condition={value} must give each name one number; type a list of rows, or a file of them")
    return [{str(name): number for name, number in value.items()}[name] for name in names]


def typical(train: Tensor, count: int) -> list[str]:
    """Returns C numbers, as text, as an example of what to type: the means of the training part (N, C), rounded to a
    tenth of a std or finer (constants to nine decimals) and to 12 digits; zeros where there are no training examples.

    Arguments:
        count: C.
    """
    if not len(train):
        return ["0"] * count
    numbers = []
    for column in train.double().T:
        std = float(column.std(correction=0))
        constant = float(column.min()) == float(column.max())
        places = 9 if constant or not std else 1 - math.floor(math.log10(std))
        numbers.append(f"{round(float(column.mean()), places) + 0.0:.12g}")
    return numbers


def warn_of_extrapolation(rows: Tensor, titles: list[str], train: Tensor) -> None:
    """Warns once of numbers y (R, C) outside the range of the training part (N, C), where no network was trained;
    ``titles`` names the C numbers.
    """
    if not len(train):
        return
    clauses = []
    for name, y, column in zip(titles, rows.double().T, train.double().T, strict=True):
        low, high = float(column.min()), float(column.max())
        margin = 1e-6 * max(abs(low), abs(high))  # float32 keeps seven digits of what the file holds
        away = torch.maximum(low - y, y - high)
        if count := int((away > margin).sum()):
            others = f" and {count - 1:,} more" if count > 1 else ""
            clauses.append(
                f"{name} = {float(y[away.argmax()]):.6g}{others} lie{'s' * (count == 1)} outside the training data "
                f"({low:.6g} to {high:.6g})"
            )
    if clauses:
        more = f"; and so of {len(clauses) - NAMED} more columns" if len(clauses) > NAMED else ""
        log.warning("condition: %s%s", "; ".join(clauses[:NAMED]), more)
