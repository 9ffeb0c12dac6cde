"""The user's own files: what is read is what was written, and every mistake is named with its remedy."""

import hashlib
import math
import pickle
import re

import numpy as np
import pytest
import torch

from scoresde.conf.schema import build
from scoresde.data import Arrays, read_points
from scoresde.data.files import numbers_of, open_file

RNG = np.random.default_rng(0)
VECTORS = RNG.normal([10.0, -3.0, 0.0], [2.0, 0.5, 7.0], (200, 3))
GREY = RNG.integers(0, 256, (20, 6, 5)).astype(np.uint8)


@pytest.fixture
def saved(tmp_path):
    """Saves an array, several by name, a table of columns or text under a name, and gives the path."""

    def save(name, *array, **columns):
        path = tmp_path / name
        if name.endswith(".npy"):
            np.save(path, *array)
        elif name.endswith(".npz"):
            np.savez(path, **columns)
        elif name.endswith(".parquet"):
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.table(columns), path)
        else:
            path.write_text(array[0], encoding="utf-8")
        return str(path)

    return save


def rows(data):
    return np.sort(torch.cat((data.train, data.test)).double().numpy(), axis=0)


def fails(message, path, kind=ValueError, **arguments):
    with pytest.raises(kind, match=message) as caught:
        build({"_target_": "data.Arrays", "path": path} | arguments, "data")
    assert "\n" not in str(caught.value)


# ---- vectors ----------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_rows(saved):
    table = "a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in VECTORS.tolist())
    paths = [
        saved("x.npy", VECTORS),
        saved("x.npz", x=VECTORS),
        saved("x.csv", table),
        saved("semicolons.csv", table.replace(",", ";")),
        saved("tabs.csv", table.replace(",", "\t")),
        saved("blanks.csv", table.replace(",", "  ")),
        saved("quotes.csv", "\ufeff\n" + table.replace("a,b,c", '"a","b","c"')),
        saved("headless.csv", table.removeprefix("a,b,c\n")),
        saved("x.parquet", a=VECTORS[:, 0], b=VECTORS[:, 1], c=VECTORS[:, 2]),
    ]
    expected = np.sort(VECTORS, axis=0)
    for path in paths:
        data = Arrays(path)
        assert data.shape == (3,) and len(data.test) == 20
        np.testing.assert_allclose(rows(data), expected, rtol=1e-6, err_msg=path)
        named = path.endswith((".csv", ".parquet")) and "headless" not in path
        assert data.labels() == (["a", "b", "c"] if named else None)


def test_units_are_the_training_columns_own(saved):
    data = Arrays(saved("x.npy", VECTORS))
    x = data.encode(data.train.double())
    torch.testing.assert_close(x.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3).double(), rtol=0, atol=1e-6)
    assert data.log_det == pytest.approx(-sum(math.log(s) for s in data.train.double().numpy().std(0)), abs=1e-6)


@pytest.mark.parametrize("mean, std", [(1.7e9, 1.0), (1e6, 1.0), (-3e4, 1e-2), (0.0, 1e-50), (1e60, 1e55)])
def test_a_column_is_centred_before_it_becomes_float32(saved, mean, std):
    column = mean + std * RNG.normal(size=2000)
    data = Arrays(saved("x.npy", np.stack((column, VECTORS[np.arange(2000) % 200, 0]), 1)))
    assert data.train.dtype == data.test.dtype == torch.float64
    x = data.encode(data.train).float()
    torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(2), rtol=0, atol=1e-5)
    assert len(x[:, 0].unique()) > 1790, "no two rows have become one"
    back = data.decode(data.encode(read_points(saved("y.npy", [[column[0], 3.0]]), (2,))))
    assert float(back[0, 0]) == pytest.approx(column[0], abs=1e-6 * std, rel=1e-12)


def test_what_float32_shows_stays_float32(saved):
    for values in (VECTORS, VECTORS.astype(np.float16), RNG.integers(-99, 99, (50, 2)), VECTORS.astype(">f8")):
        assert Arrays(saved("x.npy", values)).train.dtype == torch.float32


def test_seed_decides_the_split(saved):
    path = saved("x.npy", VECTORS)
    assert torch.equal(Arrays(path).test, Arrays(path).test)
    assert not torch.equal(Arrays(path).test, Arrays(path, seed=1).test)
    assert len(Arrays(path, test_fraction=0.25).test) == 50


def test_columns_are_chosen_by_name(saved):
    text = "id,a,b,kind\n" + "\n".join(f"{i},{i * 2},{-i * 0.5},cat" for i in range(10))
    for path in (
        saved("x.csv", text),
        saved(
            "x.parquet", id=range(10), a=[2 * i for i in range(10)], b=[-i / 2 for i in range(10)], kind=["cat"] * 10
        ),
    ):
        for key in (["b", "a"], "b,a"):
            data = Arrays(path, key=key)
            assert data.labels() == ["b", "a"]
            assert rows(data)[:, 1].tolist() == [2.0 * i for i in range(10)]
        fails(
            r"column 'kind' is not numeric \(.*\): type data\.key=\[id,a,b\]; if it is a label, data\.labels=kind", path
        )
        fails(r"has no column 'z'; its columns are id, a, b, kind", path, key=["a", "z"])


def test_a_list_of_numbers_is_a_vector_of_one(saved):
    data = Arrays(saved("x.npy", VECTORS[:, 0]))
    assert data.shape == (1,) and data.train.shape == (180, 1)


def test_content_not_path_is_the_fingerprint(saved):
    a, b = saved("a.npy", VECTORS), saved("b.npy", VECTORS)
    with open(a, "rb") as stream:
        assert Arrays(a).fingerprint() == Arrays(b).fingerprint() == hashlib.sha256(stream.read()).hexdigest()
    assert Arrays(saved("a.npy", VECTORS + 1)).fingerprint() != Arrays(b).fingerprint()


# ---- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, example", [((20, 6, 5), (1, 6, 5)), ((20, 3, 6, 5), (3, 6, 5)), ((20, 6, 5, 3), (3, 6, 5))]
)
def test_axes_of_images(saved, shape, example):
    values = RNG.integers(0, 256, shape).astype(np.uint8)
    data = Arrays(saved("x.npy", values))
    assert data.shape == example and data.levels == 256 and data.train.dtype == torch.uint8
    both = torch.cat((data.train, data.test)).numpy()
    channels_first = np.moveaxis(values, -1, 1) if shape[-1] == 3 else values.reshape(20, *example)
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in channels_first)
    assert data.encode(torch.tensor([0.0, 256.0])).tolist() == [-1.0, 1.0]


def test_channels_that_could_be_either_axis_must_be_said(saved):
    path = saved("x.npy", RNG.integers(0, 256, (20, 3, 6, 4)).astype(np.uint8))
    fails(r"\(20, 3, 6, 4\).*data\.axes=nchw \(.*\) or data\.axes=nhwc", path)
    assert Arrays(path, axes="nchw").shape == (3, 6, 4) and Arrays(path, axes="nhwc").shape == (4, 3, 6)
    fails(r"data\.axes=nchw is for files of 4 axes", saved("y.npy", GREY), axes="nchw")


def test_rows_are_read_as_the_shape_asked_for(saved):
    flat = saved("x.npy", GREY.reshape(20, 30))
    data = Arrays(flat, shape=[1, 6, 5])
    assert torch.equal(data.train, Arrays(saved("y.npy", GREY)).train) and data.levels == 256
    assert Arrays(saved("y.npy", GREY), shape=[30]).shape == (30,)
    fails(r"data\.shape=\[1, 6, 6\] has 36 values, a row of .* has 30", flat, shape=[1, 6, 6])
    fails(r"data\.shape=\[6, 5\] must be \[D\] or \[C,H,W\]", flat, shape=[6, 5])
    fails(r"more than four axes: type data\.shape", saved("z.npy", np.zeros((9, 2, 2, 2, 2))))


def test_continuous_images_share_one_unit(saved):
    values = RNG.normal(5, 2, (40, 2, 6, 5))
    data = Arrays(saved("x.npy", values))
    assert data.levels is None and data.shift.shape == data.scale.shape == ()
    x = data.encode(data.train)
    assert abs(float(x.mean())) < 1e-5 and float(x.std(correction=0)) == pytest.approx(1, abs=1e-5)


# ---- levels -----------------------------------------------------------------------------------------------------


def test_levels_are_kept_as_integers(saved):
    data = Arrays(saved("x.npy", RNG.integers(0, 10, (50, 3))), levels=10)
    assert data.train.dtype == torch.uint8 and data.levels == 10
    assert data.encode(torch.tensor([0.0, 10.0])).tolist() == [-1.0, 1.0]
    assert Arrays(saved("x.npy", RNG.integers(0, 9, (50, 3)).astype(float)), levels=1000).train.dtype == torch.int32
    assert Arrays(saved("x.npy", RNG.integers(0, 10, (50, 3)))).levels is None
    assert Arrays(saved("x.npy", RNG.random((20, 6, 5)) < 0.5)).levels == 2


def test_values_outside_the_levels_are_refused(saved):
    fails(r"values 0 \.\.\. 300, data\.levels=256 allows 0 \.\.\. 255: type data\.levels=301",
          saved("x.npy", np.array([[0], [300]])), levels=256)  # fmt: skip
    fails(r"values -1 .*shift the values", saved("x.npy", np.array([[-1], [3]])), levels=16)
    fails(r"holds 0\.5, data\.levels=16 allows integers only", saved("x.npy", np.array([[0.5], [3.0]])), levels=16)
    fails(r"holds 6\.5, data\.levels=7 allows integers only", saved("x.npy", np.array([[6.5], [0.0]])), levels=7)
    fails(r"70000, .*type data\.levels=null", saved("x.npy", np.array([[0], [70000]])), levels=7)
    fails(r"data\.levels=1 must be in 2", saved("x.npy", np.array([[0], [0]])), levels=1)


# ---- mistakes ---------------------------------------------------------------------------------------------------


def test_a_path_that_leads_nowhere(tmp_path, saved, monkeypatch):
    fails(r"data\.path is not set: type data\.path=points\.npy", None)
    fails(r"data\.path= is empty: type data\.path=points\.npy", "")
    monkeypatch.chdir(tmp_path)
    fails(rf"data\.path=no\.npy: there is no file {tmp_path}/no\.npy", "no.npy", FileNotFoundError)
    fails(r"is a folder: .*data=images", str(tmp_path))
    fails(r"ends in '\.txt': files ending in \.npy, \.npz, \.csv, \.parquet", saved("x.txt", "1 2"))
    (tmp_path / "x.npy").touch()
    fails(r"is empty \(0 bytes\)", "x.npy")


@pytest.mark.parametrize("value, count", [(np.nan, 2), (np.inf, 2)])
def test_values_that_are_not_finite_are_counted_and_located(saved, value, count):
    broken = VECTORS.copy()
    broken[[5, 9], 1] = value
    fails(rf"{count} values are missing, NaN or infinite, in column 1, the first in row 5", saved("x.npy", broken))
    columns = dict(zip("abc", broken.T, strict=True))
    fails(r"2 values are .*in column 'b', the first in row 5", saved("x.parquet", **columns))
    images = RNG.normal(size=(9, 4, 4))
    images[3, 0, 0] = value
    fails(r"1 value is missing, NaN or infinite, the first in row 3", saved("x.npy", images))


@pytest.mark.parametrize("blank", ["", "NA", "null", "nan"])
def test_missing_cells_of_a_table_are_counted(saved, blank):
    fails(r"1 value is missing.* in column 'b', the first in row 1", saved("x.csv", f"a,b\n1,2\n3,{blank}\n4,5\n"))


def test_nulls_of_a_parquet_table_are_counted(saved):
    fails(r"1 value is missing.* in column 'a', the first in row 1", saved("x.parquet", a=[1, None, 3], b=[1, 2, 3]))


def test_tables_that_are_not_what_they_seem(saved, tmp_path):
    fails(r"column 0 has no name .*data\.key=\[a,b\]", saved("x.csv", ",a,b\n0,1,2\n1,3,5\n"))
    fails(r"two columns are called 'a'", saved("x.csv", "a,a\n1,2\n3,4\n"))
    fails(r"line 3 has 3 cells, the first line has 2", saved("x.csv", "a,b\n1,2\n3,4,5\n"))
    fails(r"line 2 has 3 cells, the first line has 2", saved("x.csv", "a,b\n1,2,5\n3,4,5\n"))
    fails(r"holds no rows", saved("x.csv", "a,b\n"))
    fails(r"has no columns", saved("x.csv", "\n\n"))
    (tmp_path / "x.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    fails(r"is not UTF-8 text", str(tmp_path / "x.csv"))
    (tmp_path / "x.parquet").write_bytes(b"no such thing")
    fails(r"is not a parquet file", str(tmp_path / "x.parquet"))
    fails(r"column 'a' is not numeric \(its type is list.*no column of it is numeric", saved("x.parquet", a=[[1], [2]]))


def test_row_numbers_written_by_pandas_are_no_column(saved):
    assert Arrays(saved("x.parquet", a=[1.0, 2.0, 4.0], __index_level_0__=[0, 1, 2])).labels() == ["a"]


def test_archives_of_several_arrays(saved):
    path = saved("x.npz", x=VECTORS, y=VECTORS[:, :2])
    fails(r"holds the arrays x, y: type data\.key=\[x\]", path)
    fails(r"data\.key=z: .* no such array, it has x, y", path, key="z")
    assert Arrays(path, key="y").shape == (2,)
    fails(r"holds one array without a name: type data\.key=null", saved("x.npy", VECTORS), key="x")


def test_pickles_are_never_opened(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    np.save(tmp_path / "x.npy", np.array([Bomb(), 1], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([Bomb(), 1], dtype=object))
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("x.npy", "x.npz", "y.npy"):
        fails(r"pickled objects, which are never read", str(tmp_path / name))
    assert not (tmp_path / "exploded").exists()


def test_values_that_are_not_real_numbers(saved):
    fails(r"values of type complex128", saved("x.npy", np.array([[1j], [2.0]])))
    fails(r"values of type <U3", saved("x.npy", np.array([["cat"], ["dog"]])))


def test_too_little_to_learn_from(saved):
    fails(r"holds 1 example", saved("x.npy", VECTORS[:1]))
    fails(r"holds no rows \(an array of shape \(0, 3\)\)", saved("x.npy", VECTORS[:0]))
    fails(r"holds no rows \(an array of shape \(\)\)", saved("x.npy", np.array(3.0)))
    fails(r"column 0 varies by .* around 1e\+15.*too little for float64.*subtract its mean",
          saved("x.npy", VECTORS[:, :1] + 1e15))  # fmt: skip
    fails(r"column 0 varies by .* around 1000009.*too little for float32.*save it as float64",
          saved("x.npy", (VECTORS[:, :1] + 1e6).astype(np.float32)))  # fmt: skip
    for size in (1e200, 1e-300):
        fails("column 0 reaches from .* to .*rescale it", saved("x.npy", VECTORS * size))
    for fraction in (0.0, 1.0, -0.5, math.nan):
        fails(r"data\.test_fraction=.* between 0 and 1", saved("x.npy", VECTORS), test_fraction=fraction)


@pytest.mark.parametrize("value", [3, 0.1, -2e12, 1e300])
def test_a_constant_column_is_read_with_the_unit_1(saved, value):
    data = Arrays(saved("x.npy", np.stack((np.full(12, value, dtype=float), np.arange(12)), 1)))
    assert (
        data.shift[0] == value
        and data.scale[0] == 1
        and float(data.scale[1]) == pytest.approx(float(data.train[:, 1].std(correction=0)))
    )
    assert bool((data.encode(data.train)[:, 0] == 0).all())


# ---- points to score --------------------------------------------------------------------------------------------


def test_points_of_the_datas_shape_in_every_form(saved):
    points = read_points(saved("x.npy", VECTORS), (3,))
    np.testing.assert_allclose(points.double().numpy(), VECTORS, rtol=1e-6)
    assert points.dtype == torch.float64
    assert read_points(saved("x.npy", VECTORS[0]), (3,)).shape == (1, 3)
    assert read_points(saved("x.npy", VECTORS[:, 0]), (1,)).shape == (200, 1)
    assert read_points(saved("x.npz", x=VECTORS, log_prob=VECTORS[:, 0]), (3,)).shape == (200, 3)
    grey = torch.from_numpy(GREY)[:, None]
    for values in (GREY, GREY[:, None], GREY[..., None]):
        read = read_points(saved("x.npy", values), (1, 6, 5), levels=256)
        assert read.dtype == torch.uint8 and torch.equal(read, grey)
    colour = RNG.integers(0, 256, (4, 6, 5, 3))
    read = read_points(saved("x.npy", colour), (3, 6, 5), levels=256)
    np.testing.assert_array_equal(read.numpy(), np.moveaxis(colour, -1, 1))
    assert read_points(saved("x.npy", colour[0].transpose(2, 0, 1)), (3, 6, 5), levels=256).shape == (1, 3, 6, 5)


def test_points_in_a_table_are_matched_by_name(saved):
    path = saved("x.csv", "note,b,a\nfirst,2,1\nsecond,4,3\n")
    assert read_points(path, (2,), labels=["a", "b"]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert read_points(saved("y.csv", "1,2\n3,4\n"), (2,), labels=["a", "b"]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match=r"points=.* has no column 'c'; its columns are note, b, a"):
        read_points(path, (2,), labels=["a", "c"])


def test_points_that_do_not_fit_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=r"points=.*200 points of shape \(3,\), the data's shape is \(2,\)"):
        read_points(saved("x.npy", VECTORS), (2,))
    with pytest.raises(ValueError, match=r"shape \(5, 6\), the data's shape is \(3, 6, 5\)"):
        read_points(saved("x.npy", np.zeros((2, 5, 6))), (3, 6, 5))
    with pytest.raises(ValueError, match=r"points=.*1 value is missing, NaN or infinite, in column 0"):
        read_points(saved("x.npy", np.array([[math.nan, 1.0]])), (2,))
    for wrong in (16, 15.5, -1):  # another data.levels would be another network
        with pytest.raises(ValueError, match=rf"{wrong}.*allows .*: give points of whole numbers 0 \.\.\. 15"):
            read_points(saved("x.npy", np.array([[wrong, 1]])), (2,), levels=16)
    with pytest.raises(FileNotFoundError, match=rf"points=.*there is no file {tmp_path}/no\.csv"):
        read_points(str(tmp_path / "no.csv"), (2,))
    with pytest.raises(ValueError, match=r"holds the arrays a, b: call one of them x"):
        read_points(saved("x.npz", a=VECTORS, b=VECTORS), (3,))


def test_measurements_and_conditions_are_read_from_y(saved):
    x, y = VECTORS[:4, :2], VECTORS[:4]
    path = saved("x.npz", x=y + 1, y=y)
    assert read_points(path, (3,), content="measurements").tolist() == y.tolist()
    assert read_points(path, (3,)).tolist() == (y + 1).tolist()
    for arrays in ({"x": y}, {"x": y, "z": x}, {"z": y}):
        assert read_points(saved("z.npz", **arrays), (3,), content="measurements").tolist() == y.tolist()
    with pytest.raises(ValueError, match=r"points=.*4 points of shape \(3,\), the measurement's shape is \(1, 4, 4\)"):
        read_points(path, (1, 4, 4), content="measurements")

    def conditions(**arrays):
        return read_points(saved("c.npz", **arrays), (3,), labels=["a", "b", "c"], content="conditions").tolist()

    assert conditions(x=x, y=y) == y.tolist()
    for one in ({"x": x[0], "y": y[0]}, {"x": x[0], "y": y[:1]}, {"x": x[:1], "y": y[0]}):
        assert conditions(**one) == y[:1].tolist()
    for wrong in ({"x": x[:3], "y": y}, {"x": x, "y": y[:1]}, {"x": x[0], "y": y}):
        with pytest.raises(ValueError, match=r"points=.* holds [41] rows of y for [342] of x"):
            conditions(**wrong)
    with pytest.raises(ValueError, match=r"4 points of shape \(2,\), y's \(a, b, c\) shape is \(3,\)"):
        conditions(x=x, y=x)


def test_errors_without_a_config_key_name_none(saved):
    array, table = saved("x.npy", VECTORS), saved("x.csv", "a,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"holds one array without a name: save an \.npz with an array called a$"):
        numbers_of(open_file(array, "points"), "a")
    with pytest.raises(ValueError, match=r"x\.npz=\['a', 'b'\] must name one array of .*: name one$"):
        numbers_of(open_file(saved("x.npz", a=VECTORS, b=VECTORS), "points"), ["a", "b"])
    with pytest.raises(
        ValueError, match=r"^header=true applies to \.csv files only, .*x\.npy is not one: type header=auto$"
    ):
        open_file(array, "points", header=True)
    with pytest.raises(ValueError, match=r"^data\.key=\[\] names no column: type data\.key=\[a,b\]$"):
        numbers_of(open_file(table, "data.path"), [], choice="data.key")
    for words in ({}, {"choice": "data.key"}, {"label_key": "data.labels"}):
        source = open_file(saved("w.csv", "a,b\n1,u\n3,v\n"), "data.path")
        with pytest.raises(ValueError, match="column 'b' is not numeric") as caught:
            numbers_of(source, "b", **words)
        assert ("data.labels=b" in str(caught.value)) == ("label_key" in words)


def test_an_infinity_beside_allowed_gaps_is_called_infinite(saved):
    path = saved("x.npy", np.array([[1.0, math.nan], [math.inf, 2.0]]))
    with pytest.raises(ValueError, match="1 value is infinite, in column 0, the first in row 1"):
        read_points(path, (2,), missing=True)
    with pytest.raises(ValueError, match="2 values are missing, NaN or infinite, in columns 0, 1, the first in row 0"):
        read_points(path, (2,))


@pytest.mark.parametrize("value", [1e19, 1e39, -1e300])
def test_a_held_out_value_beyond_float32_is_refused(tmp_path, value):
    """The training part decides the type of the examples, in which such a value would be infinite."""
    path, x = str(tmp_path / "x.npy"), np.random.default_rng(0).normal(size=(40, 2))
    np.save(path, x)
    row = Arrays(path)._rows[1][0]
    for shape, says in (((40, 2), "column 1 holds"), ((40, 1, 1, 2), "a pixel holds")):
        far = x.reshape(shape).copy()
        far[row].flat[-1] = value
        np.save(path, far)
        with pytest.raises(
            ValueError, match=rf"{says} {re.escape(f'{value:.3g}')} in a held-out row, more than 1e\+18"
        ):
            Arrays(path, axes="nchw" if len(shape) == 4 else None)
    x[row, 1] = 1e17
    np.save(path, x)
    assert bool(Arrays(path).test.isfinite().all())
