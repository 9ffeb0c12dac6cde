"""Decides whether the first row of a csv file is its header, also where it holds numbers.

Words above columns of numbers make a header. Names of columns may be numbers too: wavelengths, years, or the 0,1,2 that
pandas writes for columns without names. Different numbers above columns of numbers make a header by one of five
properties that an example does not have ("marked" means written with a point, a comma or an exponent):

* its numbers are in quotes, and those of the other rows are not;
* they are integers written as digits, above five or more rows of which every number is marked, or above a column of a
  hundred or more numbers that are all marked;
* they are 0 ... D-1 (two or more), and no other row is; and all other numbers are marked, or less than half of five or
  more rows are consecutive integers;
* they ascend or descend, and each lies outside the values of its column, in five or more rows without gaps, by more
  than the column's range;
* they are evenly spaced (three or more), or consecutive integers, or ascend or descend (eight or more), and at most one
  in a hundred of twenty or more other rows has that same property.

Otherwise the words above columns of words decide. A word that recurs in its column belongs to an example, and so does a
word with one of the patterns of a column of codes (such as S12; at most three patterns). A word above categories, or
with none of the codes' patterns, is a name. Numbers without these properties and without words are an example. Where no
column holds numbers, words are a header unless one of them belongs to an example. Before all of this, a row that holds
every requested name is a header, if it holds nothing else or one of these names is a word.
"""

import re

import numpy as np

from scoresde.data.numerals import MISSING, number, resembles_number

ENOUGH = 5  # rows from which a property of all rows counts
MANY = 20  # rows from which a property that few other rows have is significant
SURE = 100  # numbers of one column, all marked: an integer above them is a name
RARE = 0.01  # largest share of the other rows with such a property
LONG = 8  # entries from which an ascending or descending row is unusual
PATTERNS = 3  # patterns of letters and digits that a column of codes may have


def is_header(
    first: list[str],
    body: list[list[str]],
    values: np.ndarray,
    quoted: tuple[list[bool], list[bool]] | None = None,
    names: list[str] | None = None,
    decimal: str = ".",
) -> bool | None:
    """Returns whether the first row is a header; None where it holds words or marks such as ? and nothing decides.

    Arguments:
        first: the cells of the first row.
        body: for each column some cells of the other rows.
        values: the numbers of up to 10,000 other rows, (N, D), NaN where a cell is not a number.
        quoted: for each column whether the first row's cell is in quotes, and whether one of ``body`` is; None if the
            quotes are unknown.
        names: the names that the user or the data ask for.
        decimal: the decimal mark, a point or a comma.
    """
    words = [j for j, cell in enumerate(first) if number(cell, decimal) is None and not resembles_number(cell)]
    if names and set(names) <= set(first) and (set(first) == set(names) or any(first[j] in names for j in words)):
        return True
    if not any(body):
        return bool(words)
    numeric = [j for j, cells in enumerate(body) if is_numeric(cells)]
    words_above_numbers = [j for j in words if j in numeric]
    filled = [j for j in numeric if j not in words and first[j].strip(" \t").lower() not in MISSING]
    # for each word above words: True for a name, False for an example
    votes = {vote for j in words if j not in numeric and (vote := is_name(first[j], body[j])) is not None}
    if not numeric:
        return bool(words) and False not in votes
    if filled and is_row_of_names(
        [first[j] for j in filled],
        [body[j] for j in filled],
        values[:, filled],
        None if quoted is None else ([quoted[0][j] for j in filled], [quoted[1][j] for j in filled]),
        decimal,
    ):
        return True
    if any(any(map(str.isalpha, first[j])) for j in words_above_numbers) or words_above_numbers and not filled:
        return True
    if words_above_numbers or len(votes) > 1:  # a mark such as ? above numbers, or words that disagree
        return None
    return next(iter(votes)) if votes else None if words else False


def is_name(word: str, cells: list[str]) -> bool | None:
    """Returns whether a word is the name of a column of words, given some of its other cells; None where nothing
    decides.
    """
    kinds = {cell.strip() for cell in cells}
    if word in kinds:
        return False
    if 2 * len(kinds) <= len(cells):
        return True
    patterns = {pattern(kind) for kind in kinds}
    return pattern(word) not in patterns if len(patterns) <= PATTERNS else None


def pattern(word: str) -> str:
    """Returns a word with one ``a`` for each run of letters and one ``9`` for each run of digits."""
    return re.sub("[0-9]+", "9", re.sub(r"[^\W\d_]+", "a", word))


def is_numeric(cells: list[str]) -> bool:
    """Returns whether at least half of the filled cells resemble numbers; False where none is filled."""
    filled = [cell for cell in cells if cell.strip(" \t").lower() not in MISSING]
    return bool(filled) and 2 * sum(map(resembles_number, filled)) >= len(filled)


def is_row_of_names(
    first: list[str],
    body: list[list[str]],
    values: np.ndarray,
    quoted: tuple[list[bool], list[bool]] | None,
    decimal: str,
) -> bool:
    """Returns whether numbers in the first row are names, by the properties in the module's text.

    The arguments are those of :func:`is_header`, for the columns of numbers whose first cell is no word.
    """
    row = [number(cell, decimal) for cell in first]
    if None in row or len(set(first)) < len(first) or not np.isfinite(row).all():
        return False
    if quoted is not None and all(quoted[0]) and not any(quoted[1]):
        return True
    row, count, rows = np.array(row), len(row), len(values)
    integers = all(is_integer(cell) for cell in first)
    filled = [[cell for cell in cells if cell.strip(" \t").lower() not in MISSING] for cells in body]
    marked = [all(any(mark in cell for mark in ".,eE") for cell in cells) for cells in filled]
    all_marked = all(marked)
    # 0 ... D-1
    if count > 1 and integers and np.array_equal(row, np.arange(count)) and not (values == row).all(1).any():
        consecutive = (np.diff(values, axis=1) == 1).all(1).mean() if rows else 0.0
        if all_marked or rows >= ENOUGH and consecutive < 0.5:
            return True
    # integers above marked numbers
    if integers and all_marked and rows >= ENOUGH:
        return True
    if integers and any(is_marked and len(cells) >= SURE for is_marked, cells in zip(marked, filled, strict=True)):
        return True
    # outside the columns' ranges
    complete = values[np.isfinite(values).all(1)]
    steps = np.diff(row)
    monotone = count > 1 and bool((steps > 0).all() or (steps < 0).all())
    if monotone and len(complete) >= ENOUGH:
        low, high = complete.min(0), complete.max(0)
        if (np.maximum(low - row, row - high) > high - low).all():
            return True
    if not monotone or len(complete) < MANY:
        return False
    # evenly spaced, consecutive or monotone as few other rows are
    others = np.diff(complete, axis=1)
    even = is_even(others)
    if integers and (np.abs(steps) == 1).all() and (even & (np.abs(others[:, 0]) == 1)).mean() <= RARE:
        return True
    if count > 2 and is_even(steps[None])[0] and even.mean() <= RARE:
        return True
    return count >= LONG and ((others > 0).all(1) | (others < 0).all(1)).mean() <= RARE


def is_integer(cell: str) -> bool:
    """Returns whether a cell is written with digits and at most a sign."""
    return cell.strip(" \t").lstrip("+-").isdigit()


def is_even(steps: np.ndarray) -> np.ndarray:
    """Returns for each row of steps (N, D - 1) whether they are equal and not zero, up to rounding."""
    size = np.abs(steps[:, 0])
    return (size > 0) & (np.abs(steps - steps[:, :1]) <= 1e-6 * size[:, None]).all(1)
