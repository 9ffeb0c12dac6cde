"""The grammar of numbers in text: decimal and scientific notation in ASCII.

Python's ``float`` also reads ``1_11`` as 111, and digits of other scripts; both are identifiers in a table. A whole
number with leading zeros, such as ``007``, is a code and not a number.
"""

import re
from decimal import Decimal

import numpy as np

MISSING = {"", "na", "n/a", "<na>", "null", "none", "nan"}  # cells, in lower case, that mean "no value"
POINT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
COMMA = re.compile(r"[+-]?(?:[0-9]+,?[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
CODE = re.compile(r"[+-]?0[0-9]+")
GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[,.' ][0-9]{3})+(?:[.,][0-9]+)?")
GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # thousands by a comma, or three decimals after one
POINTS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")  # thousands by a point, or three decimals after one
INFINITE = {"inf", "infinity"}
LOOSE = re.compile(r"[+-]?[0-9][0-9.,_' ]*(?:[eE][+-]?[0-9]+)?|[+-]?[.,][0-9]+")


def number(cell: str, decimal: str = ".") -> float | None:
    """Returns the number in a cell with this decimal mark; NaN for a missing value, None for other words."""
    cell = cell.strip(" \t")
    if (POINT if decimal == "." else COMMA).fullmatch(cell):
        return None if CODE.fullmatch(cell) else float(cell.replace(",", "."))
    word = cell.lower()
    if word.lstrip("+-") in INFINITE and len(word) - len(word.lstrip("+-")) <= 1:
        return float(word)
    return float("nan") if word in MISSING else None


def whole(word: str) -> int | None:
    """Returns the integer that a word writes, with or without a decimal point; None for others, or beyond float64."""
    if not POINT.fullmatch(word) or CODE.fullmatch(word) or abs(float(word)) == float("inf"):
        return None
    value = Decimal(word)
    return int(value) if value == value.to_integral_value() else None


def resembles_number(cell: str) -> bool:
    """Returns whether a cell looks like a number, a code or a number with an unusual mark, and not like a word."""
    return bool(LOOSE.fullmatch(cell.strip(" \t"))) or cell.strip(" \t").lower().lstrip("+-") in INFINITE


def mark_of(cells: list[str], delimiter: str) -> str | None:
    """Returns a comma if it is the decimal mark of a column that is not written with points throughout, else None.

    A comma is the decimal mark if every cell is then a number and the commas cannot separate thousands. They may
    separate thousands where three digits follow each, and either the cells are separated by commas or all cells without
    a comma are smaller integers.
    """
    filled = [cell for each in cells if (cell := each.strip(" \t")).lower() not in MISSING]
    commas = [cell for cell in filled if "," in cell]
    if not commas or any(number(cell, ",") is None for cell in filled):
        return None
    if not all(GROUP.fullmatch(cell) for cell in commas):
        return ","
    plain = [cell for cell in filled if "," not in cell]
    smaller = bool(plain) and all(abs(number(cell, ",")) < 1000 for cell in plain)
    return None if delimiter == "," or smaller else ","


def may_mark_thousands(values: np.ndarray) -> bool:
    """Returns whether the points in a column may mark thousands, by its values (N,): 950, 1.020, 870 are whole numbers.

    Whatever writes 950 for 950.000 writes 1.02 for 1.020. So points mark thousands where each is followed by three
    digits, some of which end in 0 (:func:`written_as_thousands`), and stands among whole numbers below 1000 that reach
    above it. They mark decimals where thousands would leave a gap of a factor 10, and the whole numbers reach little
    further than the others: 1.250, 2.500, 3.
    """
    values = np.abs(values[np.isfinite(values)])
    marked = values != np.floor(values)
    if marked.all() or not marked.any():
        return False
    whole = values[~marked].max()
    if not values[marked].max() < whole < 1000 or (np.abs(values * 1000 % 1 - 0.5) < 0.49).any():
        return False
    return not (whole <= 2 * values[marked].max() and 10 * whole <= 1000 * values[marked].min())


def written_as_thousands(cells: list[str]) -> bool:
    """Returns whether each cell has a point with three digits after it, and some end in 0."""
    return all(POINTS.fullmatch(cell) for cell in cells) and any(cell.endswith("0") for cell in cells)


def fault_of(cell: str) -> str:
    """Returns why a cell is not a number, as a clause after its quotation; empty where there is no more to say."""
    cell = cell.strip(" \t")
    if CODE.fullmatch(cell):
        return ", a code with leading zeros and not a number"
    if GROUPS.fullmatch(cell):
        return ", perhaps with thousands separators: write it without them, with a decimal point"
    if COMMA.fullmatch(cell):
        return ", perhaps with a decimal comma: write decimal points"
    return ""
