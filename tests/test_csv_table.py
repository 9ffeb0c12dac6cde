"""Csv files: the same numbers by either path, equal rows, headers of numbers, and messages that say what to type."""

import math
import re

import numpy as np
import pytest

import scoresde.data.csv_table
from scoresde.conf.schema import build
from scoresde.data import Arrays, read_points
from scoresde.data.files import numbers_of, open_file
from scoresde.data.header import is_header
from scoresde.data.numerals import number, whole

RNG = np.random.default_rng(5)
FLOATS = RNG.normal(size=(300, 3))
INTEGERS = RNG.integers(0, 100, (300, 3))
YEARS = RNG.integers(1950, 2030, (300, 3))
FORMS = {"%.5f": FLOATS, "%g": FLOATS, "%d": INTEGERS, "%04d": YEARS}


@pytest.fixture
def table(tmp_path):
    """Writes text to a csv file, and gives its path."""

    def save(text, encoding="utf-8"):
        path = tmp_path / "a.csv"
        path.write_bytes(text.encode(encoding))
        return str(path)

    return save


def lines(rows, form="%.5f", mark=","):
    return "".join(mark.join(form % cell for cell in row) + "\n" for row in rows)


def built(path, **keys):
    """The data of a configuration, whose errors name its keys in full."""
    return build({"_target_": "data.Arrays", "path": path} | keys, "data")


def taken(path, header="auto", missing=False, **keys):
    """The numbers, the names and the notes of a file."""
    source = open_file(path, "data.path", header, gaps=missing, header_key="data.header", **keys)
    found = numbers_of(source, None, missing=missing, choice="data.key")
    return found.values, found.names, "; ".join(found.notes)


# ---- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["1", "-2", "+3.5", "4.", ".5", "-.5e-3", "1E+10", " 7 ", "0", "-0", "0.10", "00.5"])
def test_decimal_and_scientific_notation_is_a_number(cell):
    assert number(cell) == float(cell)
    assert number(cell.replace(".", ","), ",") == float(cell)


@pytest.mark.parametrize(
    "cell",
    ["1_11", "１２", "²", "٣", "0x10", "1e", "e5", "--1", "1 2", "1.2.3", "5%", "−5", "\u00a05", "1d3", "True"]
    + ["007", "-01", "00"],
)
def test_identifiers_and_other_marks_are_no_numbers(cell, table, monkeypatch):
    monkeypatch.setattr(scoresde.data.csv_table, "CELLS", 16)
    assert number(cell) is None
    path = table(f'a;b\n1;2\n"{cell}";4\n3;5\n')
    with pytest.raises(
        ValueError, match=r"data\.path=.*column 'a' is not numeric \(line 3 holds '.*type data\.key=\[b\]"
    ):
        taken(path)
    if number(cell, ",") is None:  # of several decimal commas in a column, all are
        with pytest.raises(ValueError, match="column 'a' is not numeric"):
            taken(table(f'a\n1\n"{cell}"\n' + "2\n" * 100))


@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
@pytest.mark.parametrize("code", ["007", "-01", "+00"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_code_among_plain_numbers_is_found(mark, code, place, table):
    row = ["1e-05", "0.5", "10"]
    text = ["a", "b", "c"], row, row[:place] + [code] + row[place + 1 :], row
    path = table("\n".join(map(mark.join, text)))
    with pytest.raises(
        ValueError, match=rf"'{'abc'[place]}' is not numeric \(line 3 holds '.*a code with leading zeros"
    ):
        taken(path)


def test_whole_numbers_are_exact():
    assert whole("9007199254740993") == 2**53 + 1 and whole("1e3") == 1000 and whole("2.0") == 2
    assert whole("2.5") is whole("007") is whole("1_1") is whole("1e999") is whole("x") is None


def test_missing_and_infinite_cells():
    assert all(math.isnan(number(cell)) for cell in ("", "NA", "n/a", "null", "None", "NaN", "<NA>"))
    assert number("-inf") == number("-Infinity") == -math.inf and number("+-inf") is None


def cells(count):
    """Rows of every kind of number, gap and quotation."""
    kinds = ["%.3f", "%.17g", "%e", "%d", '"%.2f"', "  %.1f", "%+.4f"]
    rows = [[kinds[RNG.integers(len(kinds))] % v for v in row] for row in RNG.normal(scale=100, size=(count, 3))]
    for i in range(7, count, 11):
        rows[i][i % 3] = ("", "NA", "nan", '""')[i % 4]
    return rows


@pytest.mark.parametrize("size", [3, 8, 30, 2**17])
@pytest.mark.parametrize("clean", [True, False])
def test_chunks_and_both_paths_give_pythons_own_numbers(size, clean, table, monkeypatch):
    rows = [[repr(v) for v in row] for row in FLOATS[:100].tolist()] if clean else cells(100)
    monkeypatch.setattr(scoresde.data.csv_table, "CELLS", size)
    values, _, _ = taken(table("a,b,c\n" + "\n".join(map(",".join, rows))), missing=True)
    expected = [
        [float(cell.strip(' "') if cell.strip(' "') not in ("", "NA") else "nan") for cell in row] for row in rows
    ]
    np.testing.assert_array_equal(values, expected)


def test_a_chunk_may_end_inside_quotes(table, monkeypatch):
    text = "note,a\n" + "".join(f'"line\n\none, {i}",{i}\n' if i % 3 else f"{i},{i}\n" for i in range(60))
    for size in (2, 6, 10, 2**17):
        monkeypatch.setattr(scoresde.data.csv_table, "CELLS", size)
        data_ = Arrays(table(text), key="a")
        assert sorted([*data_.train[:, 0].tolist(), *data_.test[:, 0].tolist()]) == list(range(60))


# ---- rows, delimiters, encodings --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "depth", "depth,temp"])
@pytest.mark.parametrize(
    "row, says",
    [
        ("Lake, 400,11,21", r"line 32 has 4 cells.*'Lake', '400', '11', '21'; quote cells"),
        ("S31,3,5,22", "line 32 has 4 cells"),
        ("S32,12,24,", "line 32 has 4 cells.*delete the delimiter at its end"),
        ("S33,1", "line 32 has 2 cells.*complete cut lines"),
        ("S33", "line 32 has 1 cell,"),
        ("S,1,5,2,5,6", "line 32 has 6 cells.*if commas are decimal marks"),
        ("# a comment", "line 32 has 1 cell.*delete comments"),
        ("#S4,3,4", "line 32 begins with #"),
        ('"S33,1,2', "line 32 cannot be split into cells"),
    ],
)
@pytest.mark.parametrize("after", ["", "S99,1,2\n" * 3])
def test_a_row_with_another_number_of_cells_is_named(row, says, key, after, table):
    text = "site,depth,temp\n" + "".join(f"S{i},{10 + i % 3},{20 + i % 5}\n" for i in range(30)) + row + "\n" + after
    if '"' in row:
        says = "cannot be split into cells|holds a delimiter|line 3. has"
    with pytest.raises(ValueError, match=rf"data\.path=.*a\.csv: .*({says})"):
        built(table(text), key=key)


@pytest.mark.parametrize("size", [3, 2**17])  # a chunk of its own, or one with other rows
@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
def test_ragged_numbers_are_named_however_they_are_separated(mark, size, table, monkeypatch):
    monkeypatch.setattr(scoresde.data.csv_table, "CELLS", size)
    text = lines(FLOATS, mark=mark) + mark.join("12") + "\n" + lines(FLOATS, mark=mark)
    with pytest.raises(ValueError, match="line 301 has 2 cells, the first line has 3"):
        Arrays(table(text), key="1")


def test_delimiters_and_decimal_marks(table):
    expected = np.array([[1.5, 2.25], [-3, 40], [5e3, 0.125]])
    for text, said in (
        ("1,5;2,25\n-3;40\n5e3;0,125\n", "semicolons.*commas are decimal marks"),
        ("1,5\t2,25\n-3\t40\n5e3\t,125\n", "tabs.*commas are decimal marks"),
        ("1,5 2,25\n-3 40\n5e3  0,125\n", "blanks.*commas are decimal marks"),
        ('"1,5","2,25"\n-3,40\n5e3,"0,125"\n', "cells separated by commas.*commas are decimal marks"),
        ("1.5, 2.25\n-3, 40\n5e3, 0.125\n", "cells separated by commas"),
        ("1.5  2.25 \n -3 40\n5e3 0.125\n", "blanks"),
    ):
        values, _, notes = taken(table(text))
        np.testing.assert_array_equal(values, expected)
        assert re.search(said, notes), notes


@pytest.mark.parametrize(
    "text, says",
    [
        ('a,b\n"1,234",2\n"2,345",3\n', r"'1,234', perhaps with thousands separators"),
        ("a\tb\n1,234\t2\n950\t3\n", r"'1,234', perhaps with thousands separators"),
        ("a;b\n1.234,5;2\n950,2;3\n", r"'1\.234,5', perhaps with thousands separators"),
        ("a;b\n1,234,567;2\n950,2;3\n", r"'1,234,567', perhaps with thousands separators"),
        ("a;b\n1,5;2.5\n950,2;3.5\n", "column 'a' has decimal commas and column 'b' points"),
        ("a;b\n1,5;2\n2.5;3\n", "column 'a' is not numeric"),
        ("a,b\n1,5,2,25\n3,1,4,5\n", "line 2 has 4 cells.*separate the cells by semicolons"),
    ],
)
def test_marks_of_thousands_and_mixtures_are_refused(text, says, table):
    with pytest.raises(ValueError, match=says):
        taken(table(text))


@pytest.mark.parametrize(
    "content, says",
    [
        ("a,b\n1,2\n".encode("utf-16"), "zero bytes, as UTF-16 does.*iconv -f UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-be"), "zero bytes"),
        ("a,b\n1,2\nhöhe,3\n".encode("latin-1"), "line 3 holds the byte 0xf6.*iconv -f LATIN1"),
        (b"a,b\n" + b"1,2\n" * 50_000 + b"\xff,1\n", "line 50002 holds the byte 0xff"),
    ],
)
def test_other_encodings_are_named(content, says, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"is not UTF-8 text.*{says}"):
        taken(str(tmp_path / "a.csv"))


def test_comments_trailing_delimiters_and_left_out_columns_are_said(table):
    values, names, notes = taken(table("# by me\n# on Monday\na,b\n" + lines(FLOATS[:, :2])))
    assert (
        names == ["a", "b"] and len(values) == 300 and "2 lines of comments (#) above the first row left out" in notes
    )
    values, names, notes = taken(table("# a,b\n" + lines(FLOATS[:, :2])))  # as numpy.savetxt writes a header
    assert names == ["a", "b"] and len(values) == 300 and "the columns' names are in the comment" in notes
    values, names, notes = taken(table("a,b,\n" + "".join(f"{a},{b},\n" for a, b, _ in FLOATS)))
    assert names == ["a", "b"] and values.shape == (300, 2) and "an empty last column left out" in notes
    said = Arrays(
        table("id,a,b\n" + "".join(f"{i},{a},{b}\n" for i, (a, b, _) in enumerate(FLOATS))), key="b"
    ).describe()
    assert "300 rows of 1 column (b) from a.csv" in said and "2 columns left out (id, a)" in said
    assert "cells separated by commas; the first row holds the columns' names (id, a, b)" in said
    _, _, notes = taken(table("a,b\n9007199254740993,1\n9007199254740999,2\n"))
    assert "integers of column a beyond 2^53 rounded to float64" in notes


@pytest.mark.parametrize("size", [3, 2**17])
@pytest.mark.parametrize("mark", [",", ";"])
def test_points_that_mark_thousands_are_refused(mark, size, table, monkeypatch):
    monkeypatch.setattr(scoresde.data.csv_table, "CELLS", size)
    counts = RNG.permutation(np.r_[np.arange(500, 1000), 10 * np.arange(100, 130)])

    def text(write):
        return f"n{mark}a\n" + "".join(f"{write(n)}{mark}{k % 7}.5\n" for k, n in enumerate(counts))

    path = table(text(lambda n: f"{n:,}".replace(",", ".")))
    with pytest.raises(ValueError, match=r"column 'n' .*line \d+ has a point that marks thousands.*data\.key=\[a\]"):
        taken(path)
    row = int(np.argmax(counts >= 1000))
    assert open_file(path, "data.path").thousands(0) == row
    for write in ("{:d}".format, lambda n: f"{n / 1000:.3f}", lambda n: f"{n / 1000:g}", lambda n: f"{n}.000"):
        assert len(taken(table(text(write)))[0]) == len(counts)
    zeros = text(lambda n: "0" if n < 900 else f"{n / 100:.3f}")  # a column with many zeros
    assert taken(table(zeros))[0][:, 0].max() == pytest.approx(12.9)


@pytest.mark.parametrize("cells, refused", [("1.250 2.500 3", 0), ("12.500 100 99.990", 0), ("1.100 950 nan", 1)])
def test_points_among_whole_numbers(cells, refused, table):
    """Decimals whose whole numbers lack a point are numbers; thousands are refused beside a missing value too."""
    path = table(
        "n,a\n" + "".join(f"{cell},{k}.5\n" for k, cell in enumerate(30 * cells.replace("nan", "").split(" ")))
    )
    assert (open_file(path, "data.path").thousands(0) is not None) == refused


@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
def test_blank_lines_are_said_and_lines_of_delimiters_are_rows(mark, table):
    """A line of tabs holds missing values, as a line of commas does; it is no blank line."""
    text, row = lines(FLOATS, mark=mark), mark.join("a") + "\n"
    for place, count in (("\n\n" + text, 0), (text + "\n \n", 0), (text.replace("\n", "\n\n", 2), 2)):
        values, _, notes = taken(table(place))
        assert np.allclose(values, FLOATS, atol=1e-5)
        assert (f"{count} blank lines between rows left out" in notes) == (count > 0), notes
    if mark == " ":
        return
    row = 2 * mark + "\n"
    for place, at in ((row + text, 0), (text + row, 300), (text.replace("\n", "\n" + row, 1), 1)):
        with pytest.raises(ValueError, match=f"3 values are missing.* the first in row {at} "):
            taken(table(place))
        values, _, _ = taken(table(place), missing=True)
        assert len(values) == 301 and np.isnan(values[at]).all()


def test_a_label_with_a_line_end_keeps_the_notes_in_one_line(table):
    rows = "".join(f'{i},{i * i},"x\ny{i % 2}"\n' for i in range(30))
    assert "\n" not in Arrays(table("a,b,k\n" + rows), labels="k").describe()


# ---- headers of numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "header",
    [
        "400,410,420",
        '"2019","2020","2021"',
        "0,1,2",
        "1,2,3",
        "2019,2020,2021",
        "1990,2000,2010",
        "420,410,400",
        "a,1,2",
    ],
)
def test_a_header_of_numbers_is_a_header(header, form, table):
    values, names, notes = taken(table(header + "\n" + lines(FORMS[form], form)))
    assert len(values) == 300 and names == header.replace('"', "").split(",")
    np.testing.assert_allclose(values, FORMS[form], atol=6e-6, rtol=1e-5)
    assert f"the first row holds the columns' names ({', '.join(names)})" in notes


@pytest.mark.parametrize("quote", ["", '"'])
def test_integers_above_one_column_with_points(quote, table):
    """Two columns show neither even steps nor an order; the points of one of them decide."""
    body = "".join(f"{quote}{count}{quote},{quote}{a:.3f}{quote}\n" for count, (a, *_) in zip(range(300), FLOATS))
    values, names, _ = taken(table(f"{quote}400{quote},{quote}410{quote}\n{body}"))
    assert names == ["400", "410"] and len(values) == 300
    for first in ("400,410.0", "400,4.1e2"):
        values, names, _ = taken(table(f"{first}\n{body}"))
        assert names is None and len(values) == 301
    values, names, _ = taken(table("400,410\n" + body.replace(".000", "").replace(FLOATS[7, 0].__format__(".3f"), "3")))
    assert names is None and len(values) == 301


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 2, 10, 300])
def test_an_example_is_no_header(form, rows, table):
    for seed in range(5):
        shown = FORMS[form][np.random.default_rng(seed).permutation(300)[:rows]]
        values, names, notes = taken(table(lines(shown, form)))
        assert names is None and len(values) == rows
        assert "is an example, data.header=true makes it the columns' names" in notes


@pytest.mark.parametrize(
    "text",
    [
        lines(np.arange(60)[:, None] + np.arange(3), "%d"),  # every row is evenly spaced
        lines(0.1 * np.arange(60)[:, None] + np.arange(3), "%g"),  # lagged values of a ramp
        lines(np.cumsum(RNG.random((60, 12)), 1)),  # curves that ascend
        "0,1\n" + lines(RNG.integers(0, 2, (60, 2)), "%d"),  # bits
        "0,0,0\n" + lines(FLOATS),  # no two columns have one name
        "1,2\n3,4\n",
        "0,1\n2,3\n",
    ],
)
def test_rows_that_are_all_alike_have_no_header(text, table):
    values, names, _ = taken(table(text))
    assert names is None and len(values) == text.count("\n")


@pytest.mark.parametrize("quoted", [True, False])
def test_words_beside_numbers(quoted, table):
    def text(first, name):
        rows = [first] + [f"{name(i)},{a},{b}" for i, (a, b, _) in enumerate(YEARS)]
        return table("\n".join(rows) + "\n")

    mark = '"' if quoted else ""
    for name in (lambda i: f"{mark}S{i}{mark}", lambda i: f"{mark}{'ab'[i % 2]}{mark}"):
        data_ = Arrays(text("site,2019,2020", name), key="2019,2020")
        assert len(data_.train) + len(data_.test) == 300 and "1 column left out (site)" in data_.describe()
        headless = text(f"{name(0)},2019,2020", name)
        assert len(Arrays(headless, key="1,2").train) + len(Arrays(headless, key="1,2").test) == 301
    ask = text("name,2019,2020", lambda i: f"{'x' * (i % 7)} {'-y.' * (i % 5)} {i}")
    with pytest.raises(ValueError, match=r"may hold the columns' names or an example: type data\.header=true"):
        built(ask, key="1,2")
    assert len(Arrays(ask, key="1,2", header=False).train) == 271
    assert len(Arrays(ask, key="2019,2020", header=True).train) == 270
    with pytest.raises(ValueError, match=r"points=.*give the columns names that are words"):
        read_points(ask, (2,))


def test_the_key_decides(table):
    path = table(lines(FLOATS, "%.1f"))
    assert len(Arrays(path, header=True).train) == 269 and len(Arrays(path, header=False).train) == 270
    path = table("400,410,420\n" + lines(INTEGERS + 300, "%d"))
    assert Arrays(path, header=True).labels() == ["400", "410", "420"] and Arrays(path, header=False).labels() is None
    with pytest.raises(ValueError, match=r"column '0' is not numeric \(line 1 holds 'a'\)"):
        Arrays(table("a,b\n1,2\n3,4\n"), header=False)
    np.save(path.replace(".csv", ".npy"), FLOATS)
    with pytest.raises(ValueError, match=r"data\.header=true applies to \.csv files only.*type data\.header=auto"):
        built(path.replace(".csv", ".npy"), header=True)


def test_points_below_the_datas_own_names_of_numbers(table):
    points = read_points(table("420,400\n1,2\n3,4\n"), (2,), labels=["400", "420"])
    assert points.tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_what_decides_a_header():
    body = [["1.5", "2.5"], ["3.5", "4.5"]]
    values = np.array([[1.5, 3.5], [2.5, 4.5]])
    assert is_header(["a", "b"], body, values) is True
    assert is_header(["1.5", "2.5"], body, values) is False
    assert is_header(["1", "2"], body, values, ([True, True], [False, False])) is True
    assert is_header(["1", "2"], body, values, ([True, True], [False, True])) is False
    assert is_header(["9", "8"], body, values, names=["8", "9"]) is True
    assert is_header(["?", "2.5"], body, values) is None
