"""The grammar of numbers in text: decimal and scientific notation in ASCII.

Python's ``float`` also reads ``1_11`` as 111, and digits of other scripts; in a table both are words. A whole number
with leading zeros, such as ``007``, is a code and not a number. The words inf and infinity, with or without a sign, are
numbers. A column may have a comma as its decimal mark instead of a point.
"""

import re
from decimal import Decimal

import numpy as np

MISSING = {"", "na", "n/a", "<na>", "null", "none", "nan"}  # cells, in lower case, that mean "no value"
# numbers with a decimal point or without, and with a decimal comma or without
POINT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
COMMA = re.compile(r"[+-]?(?:[0-9]+,?[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
CODE = re.compile(r"[+-]?0[0-9]+")
# numbers whose thousands are separated by commas, points, apostrophes or spaces
GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[,.' ][0-9]{3})+(?:[.,][0-9]+)?")
GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # thousands by a comma, or three decimals after one
POINTS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")  # thousands by a point, or three decimals after one
INFINITE = {"inf", "infinity"}
# what looks like a number, with any marks between the digits
LOOSE = re.compile(r"[+-]?[0-9][0-9.,_' ]*(?:[eE][+-]?[0-9]+)?|[+-]?[.,][0-9]+")


def number(cell: str, decimal: str = ".") -> float | None:
    """Returns the number in a cell with this decimal mark, a point or a comma; NaN for a missing value, None for codes
    and other words.
    """
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
    """Returns a comma if it is the decimal mark of a column's cells, else None.

    A comma is the decimal mark if some cell holds one, every filled cell is then a number, and the commas cannot
    separate thousands. They may separate thousands where each has one to three digits before it, not beginning with 0,
    and three after it, and either the file's cells are separated by commas or there are cells without a comma and all
    these are below 1000.

    Arguments:
        cells: of one column.
        delimiter: the mark between the cells of a row.
    """
    filled = [cell for raw in cells if (cell := raw.strip(" \t")).lower() not in MISSING]
    commas = [cell for cell in filled if "," in cell]
    if not commas or any(number(cell, ",") is None for cell in filled):
        return None
    if not all(GROUP.fullmatch(cell) for cell in commas):
        return ","
    plain = [cell for cell in filled if "," not in cell]
    smaller = bool(plain) and all(abs(number(cell, ",")) < 1000 for cell in plain)
    return None if delimiter == "," or smaller else ","


def may_mark_thousands(values: np.ndarray) -> bool:
    """Returns whether the points in a column may mark thousands, by its values (N,) with points read as decimal.

    The column 950, 1.020, 870 holds whole numbers: a program that writes 950.000 as 950 would have written 1.020 as
    1.02. So points mark thousands under three conditions: each is followed by three digits, and some of these end in 0
    (:func:`written_as_thousands`); beside the values with a point stand whole numbers below 1000; and the largest of
    these is above all values with a point. Points mark decimals all the same if the whole numbers reach at most twice
    as far as the other values, and would lie a factor of 10 below these as thousands: 1.250, 2.500, 3.
    """
    values = np.abs(values[np.isfinite(values)])
    pointed = values != np.floor(values)
    if pointed.all() or not pointed.any():
        return False
    largest_whole = values[~pointed].max()
    # a fourth decimal rules thousands out
    if not values[pointed].max() < largest_whole < 1000 or (np.abs(values * 1000 % 1 - 0.5) < 0.49).any():
        return False
    return not (largest_whole <= 2 * values[pointed].max() and 10 * largest_whole <= 1000 * values[pointed].min())


def written_as_thousands(cells: list[str]) -> bool:
    """Returns whether each cell is like 1.020, with one point and three digits after it, and some cell ends in 0."""
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
