"""A csv file as a table of columns; the whole file is read when it is opened.

Every row must have as many cells as the first. The rows are read in chunks. numpy reads a chunk of lines that hold only
plain numbers, unless a column is kept as text; Python's csv module and the grammar of :mod:`scoresde.data.numerals`,
which gives the same numbers, read all other chunks.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from scoresde.data.csv_lines import DELIMITERS, CsvLines, Pushed, rows_of
from scoresde.data.header import is_header
from scoresde.data.numerals import fault_of, mark_of, may_mark_thousands, number, written_as_thousands

CELLS = 2**17  # cells in one chunk
PLAIN = b"0123456789+-.eE"  # the characters of plain numbers
# for each delimiter, a cell of digits with leading zeros, such as 007: a code, which is no plain number
CODES = {mark: re.compile(rf"(?:^|[\n\r{mark}])[+-]?0[0-9]+(?=[\n\r{mark}]|$)") for mark in DELIMITERS}

# some cells of one column: numbers if all of them are plain numbers and the column is not kept as text, else text
Chunk = np.ndarray | tuple[str, ...]


class CsvTable:
    """The columns of a csv file.

    Arguments:
        file: UTF-8 text, with or without a byte order mark.
        where: the start of every error, such as ``data.path=/home/me/a.csv``.
        header: whether the first row holds the names of the columns; ``auto`` lets :mod:`scoresde.data.header` decide,
            ``named`` means a header if all of ``names`` are in the first row.
        names: names that the user requests, as evidence of a header.
        text: the name or number of the column whose cells are kept as text, such as that of the labels; True for all
            columns.
        gaps: whether missing values are allowed; where the file names no columns, an empty last one is then kept.
        header_key: the config key of ``header``, for messages; None where no key sets it.

    Attributes:
        names: the names of the columns, from the header or a comment; their numbers where the file has neither.
        named: whether the file itself names its columns.
        rows: the number of rows without the header.
        columns: each column's cells, as chunks.
        pointed: for each column whether a point may stand in its numbers.
        text_columns: the numbers of the columns that are kept as text.
        notes: how the file was understood.

    Raises:
        ValueError: the file is no UTF-8 text or no csv, has rows of several lengths or comments below the first row, or
            leaves open whether it has a header.
    """

    table, index = True, frozenset()  # a csv file has no columns of a pandas index

    def __init__(
        self,
        file: Path,
        where: str,
        header: bool | str = "auto",
        names: list[str] | None = None,
        text: str | bool | None = None,
        gaps: bool = False,
        header_key: str | None = None,
    ):
        self.file, self.where, self.header_key = file, where, header_key
        self.lines = CsvLines(file, where)
        self.cache: dict[int, tuple[np.ndarray, str, int | None]] = {}
        try:
            self.read(text)
        except UnicodeDecodeError as error:
            raise self.lines.not_utf8() from error
        except csv.Error as error:
            raise self.lines.not_csv(error) from error
        self.settle_header(header, names)
        self.drop_last(gaps)
        self.refuse_commented_rows()

    # ---- reading ----

    def read(self, text: str | bool | None) -> None:
        """Reads the first row and, in chunks, the columns below it; ``text`` as in the class."""
        with self.lines.open() as stream:
            lines = Pushed(self.lines.filled(stream))
            self.first = next(self.lines.split(lines), [])
            width = len(self.first)
            if not width:
                self.columns, self.rows, self.pointed, self.text_columns, self.blank_lines = [], 0, [], set(), 0
                return
            names = [" ".join(cell.split()) for cell in self.first]
            text_columns = set(range(width)) if text is True else set()
            if isinstance(text, str):
                text_columns = {names.index(text) if text in names else column_number(text, width)} - {None}
            self.columns: list[list[Chunk]] = [[] for _ in range(width)]
            self.pointed, self.rows, self.text_columns = [False] * width, 0, text_columns
            count = max(1, CELLS // width)
            # numpy and plain_rows, where no column is kept as text
            while chunk := [] if text_columns else lines.take(count):
                values = plain_rows(chunk, self.lines.delimiter, width)
                if values is None:
                    lines.push(chunk)  # a cell in quotes may go on in the next chunk
                    self.add(list(islice(self.lines.split(lines), count)), width)
                    continue
                point = "." in "".join(chunk)
                self.pointed = [before or point for before in self.pointed]
                self.rows += len(values)
                for column, part in zip(self.columns, values.T, strict=True):
                    column.append(part)
            # Python's csv module, where one is
            rest = self.lines.split(lines.following)
            while rows := list(islice(rest, count)):
                self.add(rows, width)
            self.blank_lines = self.lines.blank

    def add(self, rows: list[list[str]], width: int) -> None:
        """Adds rows of cells to the columns, as numbers where all of a column's cells are plain numbers."""
        if set(map(len, rows)) != {width}:
            self.lines.refuse_ragged(width)
        self.rows += len(rows)
        for j, cells in enumerate(zip(*rows, strict=True)):
            values = None if j in self.text_columns else plain_column(cells)
            self.columns[j].append(cells if values is None else values)
            self.pointed[j] |= values is not None and "." in "".join(cells)

    def line_of(self, row: int) -> int:
        """Returns the number of the line, from 1, in which a row ends; rows count from 0, without the header."""
        return self.lines.line_of(row + self.has_header)

    # ---- header and notes ----

    def settle_header(self, header: bool | str, requested: list[str] | None) -> None:
        """Decides whether the first row is a header, makes it an example otherwise, and sets the names and notes."""
        first = [" ".join(cell.split()) for cell in self.first]
        if header == "auto" and first:
            has_header = self.found_header(first, requested)
        elif header == "named":
            has_header = bool(requested) and set(requested) <= set(first)
        else:
            has_header = header is True
        self.has_header = self.named = has_header
        self.names = first if has_header else [str(j) for j in range(len(first))]
        shown = ", ".join(first[:6]) + (", ..." if len(first) > 6 else "")
        if has_header:
            said = f"the first row holds the columns' names ({shown})"
        else:
            said = f"no header: the first row ({shown}) is an example"
            if self.header_key:  # errors get the key's place, data., in front; notes do not
                said += ", data.header=true makes it the columns' names"
            self.add_first_row()
            if header == "auto" and (names := self.names_in_comment()):
                self.names, self.named = names, True
                said = f"the columns' names are in the comment above the first row ({', '.join(names[:6])})"
        self.notes = [
            f"cells separated by {DELIMITERS[self.lines.delimiter]}" if len(first) > 1 else "one cell a row",
            said,
        ]
        if self.lines.comments:
            lines = f"{len(self.lines.comments)} line{'s' * (len(self.lines.comments) > 1)}"
            self.notes.append(f"{lines} of comments (#) above the first row left out")
        if self.blank_lines:
            self.notes.append(f"{self.blank_lines} blank line{'s' * (self.blank_lines > 1)} between rows left out")

    def found_header(self, first: list[str], requested: list[str] | None) -> bool:
        """Returns whether the first row is a header; raises a ValueError where nothing decides."""
        rows = rows_of(self.lines.sample, self.lines.delimiter, self.lines.whole)[1:]
        rows = [row for row in rows if len(row) == len(first)]
        body = [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in first]
        decimal = "," if any(mark_of(cells, self.lines.delimiter) for cells in body) else "."
        values = np.array([leading_values(column, decimal) for column in self.columns]).T
        verdict = is_header(first, body, values, self.quotes(), requested, decimal)
        if verdict is None:
            remedy = "give the columns names that are words, or those of the data"
            if key := self.header_key:
                remedy = f"type {key}=true if it holds names, {key}=false if it is an example"
            raise ValueError(
                f"{self.where}: the first row ({', '.join(first[:6])}) may hold the columns' names or an example: "
                f"{remedy}"
            )
        return verdict

    def names_in_comment(self) -> list[str] | None:
        """Returns the columns' names in the last comment above the first row, if it holds as many different words, two
        or more, as the row has cells; else None.
        """
        if not self.lines.comments:
            return None
        cells = next(self.lines.split(iter([self.lines.comments[-1].lstrip("# ")])), [])
        names = [cell.strip() for cell in cells]
        fits = len(names) == len(self.first) > 1 and len(set(names)) == len(names) and all(names)
        return names if fits and all(number(name) is None for name in names) else None

    def add_first_row(self) -> None:
        """Puts the first row above the others."""
        self.rows += bool(self.first)
        for j, (column, cell) in enumerate(zip(self.columns, self.first, strict=True)):
            value = None if j in self.text_columns else plain_column((cell,))
            column.insert(0, (cell,) if value is None else value)
            self.pointed[j] |= value is not None and "." in cell

    def quotes(self) -> tuple[list[bool], list[bool]] | None:
        """Returns for each column whether the first row's cell is in quotes, and whether a cell of the next rows is;
        None where rows cannot be cut at delimiters.
        """
        lines = [line.strip() for line in self.lines.sample]
        raw = list(csv.reader(lines, delimiter=self.lines.delimiter, skipinitialspace=True, quoting=csv.QUOTE_NONE))
        if any(len(row) != len(self.first) for row in raw):  # a delimiter or the end of a line in quotes
            return None
        marks = [[cell.startswith('"') for cell in column] for column in zip(*raw, strict=True)]
        return [column[0] for column in marks], [any(column[1:]) for column in marks]

    def drop_last(self, gaps: bool) -> None:
        """Leaves out a last column without name and values, which is there if every row ends in a delimiter."""
        if len(self.columns) < 2 or self.first[-1].strip() or gaps and not self.named:
            return
        if all(not isinstance(part, np.ndarray) and not any(map(str.strip, part)) for part in self.columns[-1]):
            self.columns.pop()
            self.names = self.names[:-1]
            self.notes.append("an empty last column left out (every row ends in a delimiter)")

    def refuse_commented_rows(self) -> None:
        """Raises a ValueError if some rows begin with # and others do not."""
        if not self.columns:
            return
        row, marked = 0, []
        for part in self.columns[0]:
            if not isinstance(part, np.ndarray):
                marked += [row + i for i, cell in enumerate(part) if cell.startswith("#")]
            row += len(part)
        if marked and len(marked) < self.rows:
            raise ValueError(
                f"{self.where}: line {self.line_of(marked[0])} begins with #, other rows do not: delete the line if it "
                f"is a comment, or the mark if it is not"
            )

    # ---- columns ----

    def parsed(self, j: int) -> tuple[np.ndarray, str, int | None]:
        """Returns a column's numbers (N,), NaN for missing values and words; its decimal mark; and the row of its first
        word, or None.
        """
        if j in self.cache:
            return self.cache[j]
        decimal, cells = ".", list(self.texts(j))
        if any(number(cell) is None for cell in cells):
            mixed = self.pointed[j] and any("," in cell for cell in cells)
            decimal = "." if mixed else mark_of(cells, self.lines.delimiter) or "."
        values, row_of_word, row = [], None, 0
        for part in self.columns[j]:
            if not isinstance(part, np.ndarray):
                read = [number(cell, decimal) for cell in part]
                if row_of_word is None and None in read:
                    row_of_word = row + read.index(None)
                part = np.array([np.nan if value is None else value for value in read])
            values.append(part)
            row += len(part)
        self.cache[j] = np.concatenate(values) if values else np.empty(0), decimal, row_of_word
        return self.cache[j]

    def fault(self, j: int) -> str | None:
        """Returns why a column is not numeric, in a clause; None if it is numeric."""
        _, _, row_of_word = self.parsed(j)
        if row_of_word is None and (row := self.thousands(j)) is not None:
            return (
                f"line {self.line_of(row)} has a point that marks thousands, by its column: write it without, or whole "
                f"numbers with a point too (3.000) if points mark decimals"
            )
        if row_of_word is None:
            return None
        cell = self.words(j)[row_of_word]
        return f"line {self.line_of(row_of_word)} holds {cell!r}{fault_of(cell)}"

    def thousands(self, j: int) -> int | None:
        """Returns the first row with a point in a column whose points mark thousands; None for other columns. See
        :func:`scoresde.data.numerals.may_mark_thousands`.
        """
        values, decimal, _ = self.parsed(j)
        pointed = self.pointed[j] or any("." in cell for cell in self.texts(j))
        if not pointed or decimal != "." or not may_mark_thousands(values):
            return None
        with self.lines.open() as stream:
            rows = islice(self.lines.cells(stream), int(self.has_header), None)
            cells_with_points = [(row, cells[j].strip()) for row, cells in enumerate(rows) if "." in cells[j]]
        return cells_with_points[0][0] if written_as_thousands([cell for _, cell in cells_with_points]) else None

    def numbers(self, columns: list[int]) -> np.ndarray:
        """Returns numeric columns (N, D), NaN where a cell is missing.

        Raises:
            ValueError: one column has decimal commas and another one points.
        """
        parsed = [self.parsed(j) for j in columns]
        commas = [j for j, (_, decimal, _) in zip(columns, parsed, strict=True) if decimal == ","]
        points = [j for j in columns if j not in commas and (self.pointed[j] or any("." in c for c in self.texts(j)))]
        if commas and points:
            raise ValueError(
                f"{self.where}: column {self.names[commas[0]]!r} has decimal commas and column "
                f"{self.names[points[0]]!r} points, which may be decimal or mark thousands: write decimal points alone"
            )
        if commas:
            self.notes.append("commas are decimal marks")
        return np.stack([values for values, _, _ in parsed], 1) if parsed else np.empty((self.rows, 0))

    def texts(self, j: int) -> Iterator[str]:
        """Returns the cells of a column that were not read as plain numbers."""
        return (cell for part in self.columns[j] if not isinstance(part, np.ndarray) for cell in part)

    def words(self, j: int) -> list[str]:
        """Returns a column's cells as text; a whole number that was read as a number has no decimals."""
        return [
            cell if isinstance(cell, str) else str(int(cell)) if float(cell).is_integer() else repr(float(cell))
            for part in self.columns[j]
            for cell in part
        ]

    def unquoted(self, j: int, words: set[str]) -> bool:
        """Returns whether a column has these words without quotes and all its other cells in quotes, as R writes
        missing values.
        """
        inside, outside = False, False
        with self.lines.open() as stream:
            for cells in islice(self.lines.quoted_cells(stream), int(self.has_header), None):
                if len(cells) < len(self.names):
                    return False
                if cells[j].strip() in words:
                    outside = True
                elif cells[j].startswith('"'):
                    inside = True
                else:
                    return False
        return inside and outside


def plain_rows(lines: list[str], delimiter: str, width: int) -> np.ndarray | None:
    """Returns the numbers (N, width) of lines that hold only plain numbers, or None."""
    text = "".join(lines)
    marks = b"\r\n" + delimiter.encode()
    if not text.isascii() or text.encode().translate(None, PLAIN + marks) or CODES[delimiter].search(text):
        return None
    try:
        values = np.loadtxt(lines, delimiter=None if delimiter == " " else delimiter, ndmin=2, comments=None)
    except ValueError:
        return None
    return values if values.shape[1] == width and len(values) == len(lines) else None


def plain_column(cells: tuple[str, ...]) -> np.ndarray | None:
    """Returns the numbers (N,) of cells that are all plain numbers, or None."""
    text = "\n".join(cells)
    if not text.isascii() or text.encode().translate(None, PLAIN + b"\n ") or CODES["\t"].search(text.replace(" ", "")):
        return None
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return None


def column_number(text: str, width: int) -> int | None:
    """Returns the number of a column that a word writes, or None."""
    return int(text) if text.isascii() and text.isdigit() and int(text) < width else None


def leading_values(column: list[Chunk], decimal: str) -> np.ndarray:
    """Returns the first numbers of a column, up to 10,000, NaN where a cell is not a number."""
    values: list[float] = []
    for part in column:
        if len(values) >= 10_000:
            break
        read = part.tolist() if isinstance(part, np.ndarray) else [number(cell, decimal) for cell in part]
        values += [np.nan if value is None else value for value in read]
    return np.array(values[:10_000])
