"""The lines of a csv file: their encoding, the comments above them, their delimiter, cells and line numbers."""

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from scoresde.data.numerals import mark_of

DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "blanks"}
SAMPLE = 200  # the first lines, which decide the delimiter and are evidence of a header


class CsvLines:
    """The rows of a csv file, as lines and as cells.

    Arguments:
        file: UTF-8 text, with or without a byte order mark.
        where: the start of every error, such as ``data.path=/home/me/a.csv``.

    Attributes:
        skipped: the number of lines up to the last comment above the first row.
        comments: the lines that begin with # above the first row.
        sample: the first lines that are not blank from the first row on, at most SAMPLE.
        whole: whether ``sample`` is the whole file.
        delimiter: the mark between cells.
        at: the number of the line read last, from 1.
        blank: how many blank lines stood between the rows read so far.

    Raises:
        ValueError: the file is no UTF-8 text.
    """

    def __init__(self, file: Path, where: str):
        self.file, self.where = file, where
        self.at = self.blank = 0
        self.skipped, self.comments, self.sample, self.whole = self.opening()
        self.delimiter = delimiter_of(self.sample, self.whole)

    def open(self) -> TextIO:
        """Returns the file as text, without its byte order mark."""
        return open(self.file, newline="", encoding="utf-8-sig")

    def opening(self) -> tuple[int, list[str], list[str], bool]:
        """Returns the attributes ``skipped``, ``comments``, ``sample`` and ``whole``."""
        with open(self.file, "rb") as stream:
            start = stream.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start:
            raise ValueError(
                f"{self.where} is not UTF-8 text (it holds zero bytes, as UTF-16 does): save it as UTF-8, with "
                f"iconv -f UTF-16 -t UTF-8, or as 'CSV UTF-8' from a spreadsheet"
            )
        try:
            with self.open() as stream:
                count, comments = 0, []
                for number_of_line, line in enumerate(stream, 1):
                    if line.startswith("#"):
                        comments.append(line)
                        count = number_of_line
                    elif not line.isspace():
                        sample = [line, *islice((later for later in stream if not later.isspace()), SAMPLE)]
                        return count, comments, sample[:SAMPLE], len(sample) <= SAMPLE
            return 0, [], comments[:SAMPLE], len(comments) <= SAMPLE  # a first column of words that begin with #
        except UnicodeDecodeError as error:
            raise self.not_utf8() from error

    def not_utf8(self) -> ValueError:
        """Returns the error that names the first byte that is not UTF-8."""
        content = self.file.read_bytes()
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return ValueError(
                f"{self.where} is not UTF-8 text (line {line} holds the byte 0x{content[error.start]:02x}): save it as "
                f"UTF-8, with iconv -f LATIN1 -t UTF-8 if it is Latin-1"
            )
        return ValueError(f"{self.where} is not UTF-8 text: save it as UTF-8")

    def not_csv(self, error: Exception) -> ValueError:
        """Returns the error for a line that Python's csv module refused."""
        return ValueError(
            f"{self.where}: line {self.at} cannot be split into cells ({error}): close every quotation mark, and "
            f"double those inside a cell"
        )

    def filled(self, stream: TextIO) -> Iterator[str]:
        """Yields the lines from the first row on that are not blank, and updates ``at`` and ``blank``.

        Where tabs separate the cells, a line of tabs is a row of empty cells and not blank. Where blanks do, those at a
        line's ends are left out.
        """
        self.blank, blank, begun = 0, 0, False
        for self.at, line in enumerate(stream, 1):
            if self.at <= self.skipped:
                continue
            if not (line.strip("\r\n ") if self.delimiter == "\t" else line.strip()):
                blank += begun
                continue
            self.blank, blank, begun = self.blank + blank, 0, True
            yield line.strip() + "\n" if self.delimiter == " " else line

    def split(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Returns the cells of lines, row by row."""
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=True)

    def cells(self, stream: TextIO) -> Iterator[list[str]]:
        """Returns the cells of the file, row by row from the first row on."""
        return self.split(self.filled(stream))

    def quoted_cells(self, stream: TextIO) -> Iterator[list[str]]:
        """Returns the cells of the file with their quotation marks, cut at every delimiter."""
        return csv.reader(self.filled(stream), delimiter=self.delimiter, skipinitialspace=True, quoting=csv.QUOTE_NONE)

    def refuse_ragged(self, width: int) -> None:
        """Raises a ValueError that names the first row with another number of cells."""
        with self.open() as stream:
            for cells in self.cells(stream):
                if len(cells) == width:
                    continue
                hint = "quote cells that hold a delimiter, name every column, and complete cut lines"
                if cells[0].startswith("#"):
                    hint = "delete comments below the first row"
                elif self.delimiter == "," and len(cells) == 2 * width:
                    hint = "if commas are decimal marks, write points, or separate the cells by semicolons"
                elif len(cells) == width + 1 and not cells[-1]:
                    hint = "delete the delimiter at its end, or give every line one"
                shown = ", ".join(map(repr, cells[:6])) + (", ..." if len(cells) > 6 else "")
                count = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
                raise ValueError(
                    f"{self.where}: line {self.at} has {count}, the first line has {width} (separated by "
                    f"{DELIMITERS[self.delimiter]}): {shown}; {hint}"
                )

    def line_of(self, row: int) -> int:
        """Returns the number of the line, from 1, in which a row ends; rows count from 0, a header included."""
        with self.open() as stream:
            next(islice(self.cells(stream), row, None))
            return self.at


class Pushed:
    """An iterator over lines that may be put back, to come again.

    Arguments:
        lines: an iterator.

    Attributes:
        following: the same iterator, which gives the lines after those put back.
        back: the lines put back, in order.
    """

    def __init__(self, lines: Iterator[str]):
        self.following, self.back = lines, deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self.back.popleft() if self.back else next(self.following)

    def take(self, count: int) -> list[str]:
        """Returns the next ``count`` lines, or as many as are left."""
        return list(islice(self, count))

    def push(self, lines: list[str]) -> None:
        """Puts lines back, to be the next ones."""
        self.back.extendleft(reversed(lines))


def delimiter_of(lines: list[str], whole: bool) -> str:
    """Returns the mark between cells.

    It is the first of tab, semicolon, comma and blank that gives all lines equally many cells, two or more; but a blank
    before a comma where the commas are decimal marks. If none does, it is the one of tab, semicolon and comma that most
    lines hold; without any of these, a blank if the lines after the first that it divides are more than half of all
    lines, else a comma.

    Arguments:
        lines: the first lines of the file.
        whole: whether they are all lines of the file.
    """
    split = {mark: rows_of(lines, mark, whole) for mark in DELIMITERS}
    fits = {mark: {len(row) for row in rows} for mark, rows in split.items()}
    consistent = [mark for mark, widths in fits.items() if len(widths) == 1 and min(widths) > 1]
    if "," in consistent and " " in consistent:  # "1,5 2,25" is two numbers, "1, 2" too
        commas = [cell for row in split[" "][1:] or split[" "] for cell in row]
        inner = any(" " in cell.strip() for row in split[","] for cell in row)
        if inner and mark_of(commas, " ") == ",":
            return " "
    if consistent:
        return consistent[0]
    counts = {mark: sum(mark in line.strip() for line in lines) for mark in ("\t", ";", ",")}
    best = max(counts, key=counts.get)
    return best if counts[best] else " " if 2 * sum(len(row) > 1 for row in split[" "][1:]) > len(lines) else ","


def rows_of(lines: list[str], mark: str, whole: bool) -> list[list[str]]:
    """Returns the cells of the lines, row by row; not of the last row where the file goes on (``whole`` is False),
    since a cell in quotes may end in a later line.
    """
    stripped = [line.strip() + "\n" for line in lines] if mark == " " else lines
    rows = [row for row in csv.reader(stripped, delimiter=mark, skipinitialspace=True) if row]
    return rows if whole or len(rows) < 2 else rows[:-1]
