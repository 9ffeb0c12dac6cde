"""Column names in the arrays of a run, and the files that other programs open: the user's table with its gaps filled,
and samples as a csv, a parquet file or pictures.
"""

import csv
import json

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from scoresde.cli import run
from scoresde.data import Arrays, Data, subset
from scoresde.data.filled import write_filled
from scoresde.data.points import read_points
from scoresde.tasks import Record
from scoresde.tasks.parts.sample_files import check_format, table_of, write_samples

from .conftest import compose

NAMES = ["height", "mass, kg", "age"]
TINY = ["training.vectors.steps=2", "training.vectors.batch=8", "training.vectors.evaluate=0", "model.vectors.width=8"]
QUICK = ["sampler=ddim", "sampler.steps=2", "data=arrays", *TINY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of three named columns, and a store for the networks that learn it."""
    folder = tmp_path_factory.mktemp("tables")
    x = np.random.default_rng(0).normal(size=(60, 3)) + [10, 0, 0]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(x.tolist())
    return folder


def did(folder, out, *words: str) -> dict:
    """Does a run on the table and returns the arrays that it wrote, by file."""
    words = [*QUICK, f"data.path={folder / 'table.csv'}", f"store={folder / 'store'}", *words]
    run(compose(*words), dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x"), out)
    found = {}
    for path in out.glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = dict(file)
    return found


# --- column names -----------------------------------------------------------------------------------------------------

SMALL = {  # tasks that write rows of the data, and what makes them small
    "sample": ["count=4"],
    "likelihood": ["count=4", "likelihood=exact", "likelihood.rtol=0.1", "likelihood.atol=0.1"],
    "encode": ["count=4", "task.rtol=0.1", "task.atol=0.1"],
    "interpolate": ["count=2", "task.frames=3", "task.rtol=0.1", "task.atol=0.1"],
    "memorisation": ["count=4"],
    "bound": ["count=4", "task.steps=3", "task.likelihood=null"],
    "impute": ["count=2", "operator=half", "task.draws=3", "conditioner=projection"],
    "restore": ["count=2", "operator=half", "task.draws=3", "conditioner=projection"],
    "elbo": ["count=4"],
}


@pytest.mark.parametrize("task", SMALL)
def test_rows_of_a_table_have_its_column_names(task, folder, tmp_path):
    found = did(folder, tmp_path, f"task={task}", *SMALL[task])
    assert found
    for name, arrays in found.items():
        assert arrays["columns"].tolist() == NAMES, name
        assert arrays["x"].shape[-1] == len(NAMES)


@pytest.mark.parametrize("task", ["sample", "likelihood"])
def test_a_condition_has_its_names_too(task, folder, tmp_path):
    (arrays,) = did(folder, tmp_path, f"task={task}", *SMALL[task], "data.condition=[age,height]").values()
    assert arrays["columns"].tolist() == ["mass, kg"] and arrays["x"].shape[1:] == (1,)
    assert arrays["y_columns"].tolist() == ["age", "height"] and arrays["y"].shape[1:] == (2,)


def test_data_without_names_have_none(tmp_path):
    words = ("model=oracle", "data=mixture", "count=4", "sampler=ddim", "sampler.steps=2")
    run(compose(*words), dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x"), tmp_path)
    with np.load(tmp_path / "samples.npz") as file:
        assert file.files == ["x"]


def test_samples_are_data_with_the_same_names(folder, tmp_path):
    """The file of a run is read as any file of one array, and brings its columns' names."""
    did(folder, tmp_path, "task=sample", "count=9")
    data = Arrays(str(tmp_path / "samples.npz"))
    assert data.labels() == NAMES and data.shape == (3,)
    assert not [note for note in data.notes if "left out" in note]
    assert read_points(str(tmp_path / "samples.npz"), (3,)).shape == (9, 3)


@pytest.mark.parametrize("columns", [np.arange(3), np.array(["a", "b"]), np.array(["a", "a", "b"])])
def test_an_array_of_the_users_own_is_no_names(columns, tmp_path):
    np.savez(tmp_path / "own.npz", x=np.eye(3), columns=columns)
    data = Arrays(str(tmp_path / "own.npz"))
    assert data.labels() is None
    assert any("left out (columns)" in note for note in data.notes)


def test_an_array_that_is_called_columns_can_be_the_data(tmp_path):
    np.savez(tmp_path / "own.npz", columns=np.eye(3))
    assert Arrays(str(tmp_path / "own.npz")).shape == (3,)


# --- the user's table with its gaps filled ----------------------------------------------------------------------------

FILLED = np.array([[1.5, 2.25], [3.0, -4.125], [5.5, 6.0]])

CSVS = {  # a file with gaps, and what becomes of it; @ and ! are the filled cells of the first and the second column
    "plain": "a,b\n1.50,!\n@,-4.125\n5.5,6.0\n",
    "other columns and another order": "id,b,note,a\n007,!,x,1.50\n008,-4.125,,@\n009,6.0, y ,5.5\n",
    "windows": "a,b\r\n1.50,!\r\n@,-4.125\r\n5.5,6.0\r\n",
    "no last newline": "a,b\n1.50,!\n@,-4.125\n5.5,6.0",
    "semicolons": "a;b\n1.50;!\n@;-4.125\n5.5;6.0\n",
    "decimal commas": "a;b\n1,50;!\n@;-4,125\n5,5;6,0\n",
    "tabs": "a\tb\n1.50\t!\n@\t-4.125\n5.5\t6.0\n",
    "blanks": "a b\n1.50 !\n@ -4.125\n5.5 6.0\n",
    "comments": "# by hand, 2024\n# in cm\na,b\n1.50,!\n@,-4.125\n5.5,6.0\n",
    "blank lines": "\na,b\n\n1.50,!\n\n\n@,-4.125\n5.5,6.0\n\n",
    "blanks around": "a, b\n 1.50 ,!\n@ , -4.125\n5.5, 6.0\n".replace("@ ,", "@,"),
    "quotes": 'a,b,say\n"1.50",!,"say ""hi"", twice"\n@,"-4.125","two\nlines"\n5.5,6.0,""\n',
    "no header": "1.50,!\n@,-4.125\n5.5,6.0\n",
    "umlauts": "größe,a,b\nä,1.50,!\nö,@,-4.125\nü,5.5,6.0\n",
    "ends in a delimiter": "a,b,\n1.50,!,\n@,-4.125,\n5.5,6.0,\n",
}


def texts(file: str, gap: str, quoted: str = '"') -> tuple[str, str]:
    """A file with gaps, and the same file filled."""
    comma = "5,5;" in file
    first, second = ("3,0", "2,25") if comma else ("3.0", "2.25")
    return file.replace("@", gap).replace("!", gap), file.replace("@", first).replace("!", second)


@pytest.mark.parametrize("gap", ["", "NA", "nan", '""'], ids=["empty", "NA", "nan", "quotes"])
@pytest.mark.parametrize("name", CSVS)
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_a_filled_csv_is_the_users_file_but_for_its_gaps(name, gap, mark, tmp_path):
    if name == "blanks" and gap in ("", '""'):
        gap = "null"  # blanks cannot divide empty cells
    before, after = texts(CSVS[name], gap)
    (tmp_path / "gaps.csv").write_text(before, encoding=mark, newline="")
    labels = None if name == "no header" else ["a", "b"]
    path = write_filled(str(tmp_path / "gaps.csv"), tmp_path, None, FILLED, labels)
    assert path == tmp_path / "filled.csv"
    assert path.read_bytes() == after.encode(mark)
    r = read_points(str(path), (2,), labels=labels)
    assert torch.equal(r, torch.from_numpy(FILLED))


def test_rows_that_count_leaves_out_keep_their_gaps(tmp_path):
    (tmp_path / "gaps.csv").write_text("a,b\n" + "1,\n" * 5)
    rows = subset(torch.arange(5), 2).tolist()
    write_filled(str(tmp_path / "gaps.csv"), tmp_path, 2, np.array([[1.0, 7.5], [1.0, 8.5]]), ["a", "b"])
    wanted = ["1,"] * 5
    wanted[rows[0]], wanted[rows[1]] = "1,7.5", "1,8.5"
    assert (tmp_path / "filled.csv").read_text().splitlines() == ["a,b", *wanted]


def test_integers_are_written_as_such(tmp_path):
    (tmp_path / "gaps.csv").write_text("a,b\n1,\n,2\n")
    write_filled(str(tmp_path / "gaps.csv"), tmp_path, None, np.array([[1, 3], [4, 2]], dtype=np.uint8), ["a", "b"])
    assert (tmp_path / "filled.csv").read_text() == "a,b\n1,3\n4,2\n"


def test_a_filled_parquet_file_keeps_columns_types_and_metadata(tmp_path):
    whole = pyarrow.array([2**60 + 1, None, 7], pyarrow.int64())
    table = pyarrow.table(
        {
            "id": pyarrow.array(["x", None, "z"]),
            "b": pyarrow.array([None, -4.125, 0.1], pyarrow.float32()),
            "untouched": pyarrow.array([None, 2**60 + 1, 7], pyarrow.int64()),
            "a": pyarrow.array([1, None, 5], pyarrow.int32()),
            "word": pyarrow.array(["u", "v", "u"]).dictionary_encode(),
        }
    ).replace_schema_metadata({"made": "by hand"})
    parquet.write_table(table, tmp_path / "gaps.parquet")
    path = write_filled(str(tmp_path / "gaps.parquet"), tmp_path, None, FILLED, ["a", "b"])
    found = parquet.read_table(path)
    assert found.column_names == table.column_names and found.schema.metadata[b"made"] == b"by hand"
    for name in ("id", "untouched", "word"):
        assert found[name].equals(table[name])
    assert found["b"].type == pyarrow.float32()
    assert found["b"].to_pylist() == [2.25, -4.125, float(np.float32(0.1))]
    assert found["a"].type == pyarrow.float64() and found["a"].to_pylist() == [1.0, 3.0, 5.0]
    # whole numbers stay whole, and the rows that count= leaves out stay empty
    parquet.write_table(
        pyarrow.table({"a": whole, "b": pyarrow.array([1, 2, 3], pyarrow.int8())}), tmp_path / "gaps.parquet"
    )
    write_filled(str(tmp_path / "gaps.parquet"), tmp_path, None, np.array([[9, 1], [4, 2], [7, 3]]), ["a", "b"])
    found = parquet.read_table(path)
    assert found["a"].to_pylist() == [2**60 + 1, 4, 7] and found["a"].type == pyarrow.int64()
    (left,) = {0, 1, 2} - set(subset(torch.arange(3), 2).tolist())
    column = [None, None, None]
    parquet.write_table(pyarrow.table({"a": pyarrow.array(column, pyarrow.float64())}), tmp_path / "gaps.parquet")
    write_filled(str(tmp_path / "gaps.parquet"), tmp_path, 2, np.array([[0.5], [0.5]]), ["a"])
    assert [k for k, v in enumerate(parquet.read_table(path)["a"].to_pylist()) if v is None] == [left]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_filled_array_keeps_its_type(suffix, tmp_path):
    gaps = np.array([[1.1, np.nan], [np.nan, -4.125], [5.5, 0.1]], dtype=np.float32)
    path = str(tmp_path / f"gaps.{suffix}")
    np.save(path, gaps) if suffix == "npy" else np.savez(path, x=gaps)
    found = np.load(write_filled(path, tmp_path, None, FILLED, None))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(np.isnan(gaps), FILLED, gaps).astype(np.float32))


def test_impute_fills_the_users_table_with_the_first_draw(folder, tmp_path):
    (tmp_path / "gaps.csv").write_text('who,age,height,"mass, kg"\nÄ,0.50,,1.0\nB,,9,\n')
    found = did(
        folder, tmp_path, "task=impute", f"points={tmp_path / 'gaps.csv'}", "task.draws=3", "conditioner=projection"
    )
    x = found["restored"]["x"][:, 0].tolist()
    wanted = [["who", "age", "height", "mass, kg"], ["Ä", "0.50", repr(x[0][0]), "1.0"]]
    wanted.append(["B", repr(x[1][2]), "9", repr(x[1][1])])
    with (tmp_path / "filled.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == wanted


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_samples_of_vectors_as_a_table(kind, folder, tmp_path):
    arrays = did(folder, tmp_path, "task=sample", "count=5", f"task.format={kind}")["samples"]
    path = str(tmp_path / f"samples.{kind}")
    read = read_points(path, (3,), labels=NAMES)
    np.testing.assert_array_equal(read.numpy(), arrays["x"])  # every digit
    assert json.loads((tmp_path / "metrics.json").read_text())["count"] == 5


def test_a_table_of_samples_holds_their_y():
    x = np.arange(4.0).reshape(2, 2)
    assert list(table_of({"x": x})) == ["0", "1"]
    assert list(table_of({"x": x, "y": np.array(["cat", "dog"])})) == ["y", "0", "1"]
    named = {"x": x, "columns": np.array(["y", "b"]), "y": np.array([3, 4])}
    assert list(table_of(named)) == ["class label", "y", "b"]
    found = table_of({**named, "y": np.ones((2, 2)), "y_columns": np.array(["b", "c"])})
    assert list(found) == ["given b", "c", "y", "b"] and found["b"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_samples_of_images_as_pictures(channels, levels, tmp_path):
    x = np.random.default_rng(0).integers(0, levels, (11, channels, 4, 6)).astype(np.uint8)
    data = Data(torch.from_numpy(x), torch.from_numpy(x), 1.0, 1.0, levels)
    check_format("png", data)
    with Record(tmp_path) as record:
        path = write_samples("png", data, {"x": x}, record)
    files = sorted(path.glob("*"))
    assert [file.name for file in files] == [f"{i:02d}.png" for i in range(11)]
    for picture, file in zip(x, files, strict=True):
        pixels = np.asarray(Image.open(file))
        pixels = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
        np.testing.assert_array_equal(pixels, np.round(picture * (255 / (levels - 1))))


@pytest.mark.parametrize(
    "kind, shape, levels, said",
    [
        ("csv", (1, 4, 4), 17, "task.format=csv is for vectors.*type task.format=png"),
        ("parquet", (3, 4, 4), 256, "task.format=parquet is for vectors"),
        ("png", (3,), None, "task.format=png is for .* images.*type task.format=csv"),
        ("png", (2, 4, 4), 256, "task.format=png is for .* images.*leave it out"),
        ("png", (1, 4, 4), None, "are continuous; leave it out"),
        ("png", (1, 4, 4), 65536, "of 65536 levels"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(kind, shape, levels, said):
    x = torch.zeros(4, *shape, dtype=torch.float64 if levels is None else torch.int64)
    with pytest.raises(ValueError, match=said):
        check_format(kind, Data(x, x, 0.0, 1.0, levels))


def test_a_format_is_refused_before_a_training(tmp_path):
    words = compose("data=digits", "task.format=csv", f"store={tmp_path / 'store'}")
    with pytest.raises(ValueError, match="task.format=csv"):
        run(words, dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x"), tmp_path / "run")
    assert not (tmp_path / "store").exists()
