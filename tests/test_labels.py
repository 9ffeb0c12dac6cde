"""Labels of any type: each row has its file's class, unequal labels stay apart, and each can be asked for."""

import datetime
import decimal
import math

import numpy as np
import pytest
import torch

from scoresde.conf.schema import build
from scoresde.data import Arrays, Condition, Conditional
from scoresde.tasks.parts.conditions import as_written

COUNT = 40
X = np.random.default_rng(0).normal(size=(COUNT, 3))


def built(path, **keys):
    """The data of a configuration, whose errors name its keys in full."""
    return build({"_target_": "data.Arrays", "path": path} | keys, "data")


def npz(folder, y):
    np.savez(folder / "a.npz", x=X[: len(y)], y=y)
    return str(folder / "a.npz")


def csv(folder, y, quote=""):
    rows = [f"{a},{b},{quote}{k}{quote}" for (a, b, _), k in zip(X.tolist(), y, strict=True)]
    (folder / "a.csv").write_text("\n".join(["a,b,y", *rows]) + "\n", encoding="utf-8")
    return str(folder / "a.csv")


def parquet(folder, y):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": X[:, 0], "b": X[:, 1], "y": y}), folder / "a.parquet")
    return str(folder / "a.parquet")


def arrow(values, **keys):
    return pytest.importorskip("pyarrow").array(values, **keys)


def cycle(*values, **keys):
    return np.array([values[i % len(values)] for i in range(COUNT)], **keys)


def read(path):
    """The label of every row as it is called, in the file's order."""
    data = Arrays(path, labels="y")
    names = [None] * COUNT
    for part, rows in zip(("train", "test"), data._rows, strict=True):
        for row, k in zip(rows.tolist(), getattr(data, f"{part}_labels").tolist(), strict=True):
            names[row] = data.class_names[k] if data.class_names else str(k)
    return data, names


WRITERS = {"npz": npz, "csv": csv, "parquet": parquet}
CASES = {
    "words": ("npz", cycle("a", "b"), ["a", "b"]),
    "bytes": ("npz", cycle(b"a", "é".encode()), ["a", "é"]),
    "truths": ("npz", cycle(True, False), ["1", "0"]),
    "int8": ("npz", cycle(-3, 5, dtype=np.int8), ["-3", "5"]),
    "big-endian": ("npz", cycle(1, 2, dtype=">i4"), ["1", "2"]),
    "uint64": ("npz", cycle(2**63, 2**63 + 1, dtype=np.uint64), ["9223372036854775808", "9223372036854775809"]),
    "uint64-small": ("npz", cycle(2**62, 2**62 + 1, dtype=np.uint64), [str(2**62), str(2**62 + 1)]),
    "floats": ("npz", cycle(1.0, 2.0), ["1", "2"]),
    "large-floats": ("npz", cycle(1e30, 2e30), ["1e+30", "2e+30"]),
    "float32": ("npz", cycle(1e30, 2e30, dtype=np.float32), ["1e+30", "2e+30"]),
    "dates": ("npz", cycle("2020-01-01", "2021-01-01", dtype="M8[D]"), ["2020-01-01", "2021-01-01"]),
    "column": ("npz", cycle(1, 2)[:, None], ["1", "2"]),
    "none": ("npz", cycle("none", "mild", "severe"), ["none", "mild", "severe"]),
    "csv-none": ("csv", cycle("none", "null", "NA", "mild"), ["none", "null", "NA", "mild"]),
    "csv-underscores": ("csv", cycle("1_11", "11_1", "3"), ["1_11", "11_1", "3"]),
    "csv-codes": ("csv", cycle("007", "7", "07"), ["007", "7", "07"]),
    "csv-other-digits": ("csv", cycle("1", "²", "１"), ["1", "²", "１"]),
    "csv-superscripts": ("csv", cycle("²", "³"), ["²", "³"]),
    "csv-beyond-float64": ("csv", cycle(2**53, 2**53 + 1), [str(2**53), str(2**53 + 1)]),
    "csv-beyond-int64": ("csv", cycle(2**63, 2**63 + 1, -5, dtype=object), [str(2**63), str(2**63 + 1), "-5"]),
    "csv-one-number": ("csv", cycle("1e30", "1E30", "2e30"), ["1e30", "1e30", "2e30"]),
    "csv-decimals": ("csv", cycle("1.0", "2", "1"), ["1", "2", "1"]),
    "csv-infinity": ("csv", cycle("inf", "low"), ["inf", "low"]),
    "csv-truths": ("csv", cycle("True", "False"), ["True", "False"]),
    "csv-dates": ("csv", cycle("2020-01-01", "2020-02-01"), ["2020-01-01", "2020-02-01"]),
    "csv-quoted-NA": ("csv-quoted", cycle("NA", "x"), ["NA", "x"]),
    "parquet-none": ("parquet", cycle("none", "mild").tolist(), ["none", "mild"]),
    "parquet-truths": ("parquet", cycle(True, False).tolist(), ["1", "0"]),
    "parquet-bytes": ("parquet", [b"a", b"b"] * 20, ["a", "b"]),
    "parquet-dates": (
        "parquet",
        [datetime.date(2020, 1, 1 + i % 2) for i in range(COUNT)],
        ["2020-01-01", "2020-01-02"],
    ),
    "parquet-times": (
        "parquet",
        [datetime.datetime(2020, 1, 1, i % 2) for i in range(COUNT)],
        ["2020-01-01 00:00:00.000000", "2020-01-01 01:00:00.000000"],
    ),
    "parquet-midnights": (
        "parquet",
        [datetime.datetime(2020, 1, 1 + i % 2) for i in range(COUNT)],
        ["2020-01-01", "2020-01-02"],
    ),
    "parquet-decimals": ("parquet", [decimal.Decimal(i % 2) for i in range(COUNT)], ["0", "1"]),
    "parquet-int64": ("parquet", [2**60 + i % 2 for i in range(COUNT)], [str(2**60), str(2**60 + 1)]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_row_has_its_label_and_every_class_can_be_asked_for(case, tmp_path):
    kind, y, wanted = CASES[case]
    path = csv(tmp_path, y, '"') if kind == "csv-quoted" else WRITERS[kind](tmp_path, y)
    data, names = read(path)
    assert names == [wanted[i % len(wanted)] for i in range(COUNT)]
    classes = list(dict.fromkeys(wanted))
    assert f"labels from y: {len(classes)} classes" in data.describe()
    condition = Conditional(data, "labels").condition
    for name in classes:
        assert condition.name_of(condition.asking(name).single[0]) == name
        if name in ("1e+30", "1e30", "2e+30", "2e30"):  # as a command line reads it
            assert condition.name_of(condition.asking(float(name)).single[0]) == name
    held = as_written(condition, condition.train)["y"]
    assert [str(v) for v in held.tolist()] == [names[i] for i in data._rows[0].tolist()]
    assert held.dtype.kind == "i" or set(map(str, held.tolist())) == set(classes)


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz", "parquet"])
@pytest.mark.parametrize(
    "case", ["words", "bytes", "uint64", "large-floats", "csv-codes", "csv-underscores", "csv-none"]
)
def test_a_file_asks_for_odd_labels(case, suffix, tmp_path):
    kind, y, wanted = CASES[case]
    conditional = Conditional(Arrays(WRITERS[kind](tmp_path, y), labels="y"), "labels")
    asked, path = y[:5], tmp_path / f"asked.{suffix}"
    if suffix == "npy":
        np.save(path, asked)
    elif suffix == "npz":
        np.savez(path, y=asked, x=np.zeros(5))
    elif suffix == "csv":
        words = [v.decode() if isinstance(v, bytes) else str(v) for v in asked.tolist()]
        path.write_text("\n".join(["y", *words]), encoding="utf-8")
        headless = tmp_path / "headless.csv"
        headless.write_text("\n".join(words), encoding="utf-8")
        assert torch.equal(
            conditional.condition.asking(str(headless)).asked, conditional.condition.asking(str(path)).asked
        )
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        kind = pytest.importorskip("pyarrow").uint64() if asked.dtype == np.uint64 else None
        parquet.write_table(pytest.importorskip("pyarrow").table({"y": arrow(asked.tolist(), type=kind)}), path)
    found = conditional.condition.asking(str(path))
    assert [found.names[k] for k in found.asked.tolist()] == [wanted[i % len(wanted)] for i in range(5)]


@pytest.mark.parametrize(
    "kind, y, says",
    [
        ("npz", cycle("a", "b").astype(object), r"array 'y'.*pickled objects, which are never read.*astype\(str\)"),
        ("npz", cycle(1j, 2), "values of type complex128"),
        ("npz", np.zeros(COUNT, dtype=[("k", int)]), "save words"),
        ("npz", cycle(1, 2).astype("m8[s]"), "values of type timedelta64"),
        ("npz", np.zeros((COUNT, 2)), r"has the shape \(40, 2\).*of shape \(40,\)"),
        ("npz", np.zeros((COUNT, 1, 1)), r"has the shape \(40, 1, 1\)"),
        ("npz", cycle(1.0, np.nan), "20 rows have no label, the first is row 1"),
        ("npz", cycle(1.0, 1.5), r"holds 1\.5, and labels are words or whole numbers.*data\.condition=\[y\]"),
        ("npz", cycle(1.0, np.inf), "holds inf"),
        ("npz", cycle("2020-01-01", "NaT", dtype="M8[D]"), "20 rows have no label"),
        ("npz", cycle("a", ""), "20 rows have no label"),
        ("npz", cycle("a", "nan"), "20 rows have no label"),
        ("npz", cycle(b"\xe9", b"a"), "which are not UTF-8"),
        ("csv", cycle("a", ""), "20 rows have no label, the first is row 1"),
        ("csv", ["1"] * 39 + ["NA"], "1 row has no label, the first is row 39"),
        ("csv", ["1"] * 39 + ["none"], "1 row has no label"),
        ("csv", ['"x"'] * 39 + ["NA"], "1 row has no label"),  # as R writes a missing word
        ("csv", cycle("1.5", "2"), r"holds 1\.5"),
        ("parquet", ["a", None] * 20, "20 rows have no label"),
        ("parquet", [1, None] * 20, "20 rows have no label"),
        ("parquet", [[1]] * COUNT, "has the type list"),
        ("parquet", [{"k": 1}] * COUNT, "has the type struct"),
        ("parquet", [datetime.timedelta(1)] * COUNT, "has the type duration"),
    ],
)
def test_what_is_no_label_names_the_key_and_the_file(kind, y, says, tmp_path):
    path = WRITERS[kind](tmp_path, y)
    with pytest.raises(ValueError, match=says) as caught:
        built(path, labels="y")
    assert str(caught.value).startswith("data.labels=y") and path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_lines_numbers_find_their_labels(tmp_path):
    condition = Conditional(Arrays(csv(tmp_path, cycle(1, 2)), labels="y"), "labels").condition
    assert condition.name_of(condition.asking(1.0).single[0]) == "1"
    conditional = Conditional(Arrays(csv(tmp_path, cycle("1_11", "3")), labels="y"), "labels")
    with pytest.raises(ValueError, match=r"111 is no label.*type one of 1_11, 3.*condition=\"'1_11'\""):
        conditional.asking(111)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, pytest.param(10**400, id="10^400"), None, [], [math.nan], [[1]], {"y": 1}]
)
def test_what_is_no_condition_is_refused(value, tmp_path):
    """A command line reads nan, inf and 1e400 as numbers."""
    data = Arrays(csv(tmp_path, cycle(1, 2)))
    labelled = Arrays(csv(tmp_path, cycle(1, 2)), labels="y")
    with pytest.raises(ValueError, match="is no label of these data; type one of 1, 2"):
        Conditional(labelled, "labels").asking(value)
    if value not in ([[1]], {"y": 1}):
        with pytest.raises(ValueError, match="must be 1 finite number, of y: type condition=1.5"):
            Conditional(data, ["y"]).asking(value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_of_every_size_are_whole_numbers(kind, tmp_path):
    for y, names in (((1, 2), [1, 2]), ((-3, 60000), [-3, 60000])):
        data = Arrays(npz(tmp_path, cycle(*y, dtype=kind)), labels="y")
        assert data.class_names is None and data.train_labels.unique().tolist() == names


def test_names_that_are_one_number_are_written_as_words():
    none = torch.empty(0)
    condition = Condition(torch.arange(2), torch.arange(2), ("1", "1.0"), True, none, none)
    assert as_written(condition, torch.tensor([0, 1, 1]))["y"].tolist() == ["1", "1.0", "1.0"]


def test_labels_of_a_file_of_conditions_must_be_there(tmp_path):
    conditional = Conditional(Arrays(csv(tmp_path, cycle("a", "b")), labels="y"), "labels")
    for name, content, says in (
        ("gap.csv", 'y\na\n""\nb\n', "row 1 holds no label"),
        ("wide.csv", "k,m\na,b\n", "has the columns 0, 1: call one of them y"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=rf"condition=.*{name}.*{says}"):
            conditional.condition.asking(str(tmp_path / name))
    np.save(tmp_path / "two.npy", np.array([["a", "b"]]))
    with pytest.raises(ValueError, match=r"labels of shape \(1, 2\): save one a row"):
        conditional.condition.asking(str(tmp_path / "two.npy"))
