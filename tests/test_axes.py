"""Axes of arrays: channels are found, two readings are refused with both, and points have the data's shape."""

import itertools
import logging

import numpy as np
import pytest
import torch

from scoresde.conf.schema import build
from scoresde.data import Arrays, Conditional, read_points
from scoresde.data.axes import ORDERS

RNG = np.random.default_rng(7)


def built(path, **keys):
    """The data of a configuration, whose errors name its keys in full."""
    return build({"_target_": "data.Arrays", "path": path} | keys, "data")


def saved(folder, values, name="x.npy"):
    np.save(folder / name, values)
    return str(folder / name)


def rows(data):
    return sorted(torch.cat([data.train, data.test]).double().flatten(1).tolist())


def as_rows(values):
    return sorted(values.astype(np.float32).astype(float).reshape(len(values), -1).tolist())


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 12, 16, 31])
@pytest.mark.parametrize("sides", [(8, 8), (9, 9)])
def test_channels_are_told_from_equal_sides_first_and_last(channels, sides, tmp_path):
    values = RNG.normal(size=(35, channels, *sides)).astype(np.float32)
    for array, axes in ((values, "nchw"), (np.moveaxis(values, 1, -1), "nhwc")):
        data = Arrays(saved(tmp_path, array))
        assert data.shape == (channels, *sides) and rows(data) == as_rows(values)
        assert f"axes {array.shape} read as {axes} (examples" in data.describe()


@pytest.mark.parametrize(
    "shape, example",
    [
        ((20, 2, 6, 5), (2, 6, 5)),
        ((20, 6, 5, 2), (2, 6, 5)),
        ((20, 3, 4, 4), (3, 4, 4)),
        ((20, 7, 9, 3), (3, 7, 9)),
        ((20, 4, 4, 3), (3, 4, 4)),
        ((20, 3, 32, 16), (3, 32, 16)),
        ((20, 16, 32, 3), (3, 16, 32)),
    ],
)
def test_channels_are_told_from_unequal_sides(shape, example, tmp_path):
    values = RNG.normal(size=shape)
    channels_first = values if shape[1:] == example else np.moveaxis(values, -1, 1)
    data = Arrays(saved(tmp_path, values))
    assert data.shape == example and rows(data) == as_rows(channels_first)


@pytest.mark.parametrize(
    "shape, orders",
    [
        ((40, 5, 6, 7), ["nchw", "nhwc"]),
        ((40, 12, 16, 24), ["nchw", "nhwc"]),
        ((40, 4, 4, 4), ["nchw", "nhwc"]),
        ((40, 3, 3, 28), ["nchw", "nhwc"]),
        ((40, 7, 3, 3), ["nchw", "nhwc"]),
        ((40, 3, 6, 4), ["nchw", "nhwc"]),
        ((40, 4, 16, 2), ["nchw", "nhwc"]),
        ((40, 2, 16, 4), ["nchw", "nhwc"]),
        ((32, 32, 3, 50), ["nchw", "nhwc", "hwcn"]),
        ((5, 28, 28, 60), ["nchw", "nhwc", "chwn"]),
        ((28, 28, 60), ["nhw", "hwn"]),
    ],
)
def test_two_readings_are_refused_with_both_and_each_can_be_typed(shape, orders, tmp_path):
    values = RNG.normal(size=shape)
    path = saved(tmp_path, values)
    with pytest.raises(ValueError, match=rf"can be read in {len(orders)} ways") as caught:
        built(path)
    for axes in orders:
        assert f"data.axes={axes} (" in str(caught.value)
        data = Arrays(path, axes=axes)
        kept = "nchw" if len(axes) == 4 else "nhw"
        moved = values.transpose([axes.index(letter) for letter in kept])
        assert len(data.train) + len(data.test) == shape[axes.index("n")]
        assert data.shape == (moved.shape[1:] if len(axes) == 4 else (1, *moved.shape[1:])) and rows(data) == as_rows(
            moved
        )
        assert f"read as {axes} (" in data.describe()


@pytest.mark.parametrize("axes", ["".join(each) for order in ORDERS for each in itertools.permutations(order)])
def test_every_order_of_axes_can_be_typed(axes, tmp_path):
    sizes = dict(zip("nchw", (11, 2, 3, 4), strict=True))
    kept = next(order for order in ORDERS if sorted(order) == sorted(axes))
    values = RNG.normal(size=[sizes[letter] for letter in kept])
    data = Arrays(saved(tmp_path, values.transpose([kept.index(letter) for letter in axes])), axes=axes)
    assert data.shape == {"n": (1,), "nc": (2,), "nhw": (1, 3, 4), "nchw": (2, 3, 4)}[kept]
    assert rows(data) == as_rows(values)


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"axes": "hwc"}, r"data\.axes=hwc must be the letters of n, nc, nhw, nchw"),
        ({"axes": "nhww"}, r"data\.axes=nhww must be the letters"),
        ({"axes": "nhw"}, r"data\.axes=nhw is for files of 3 axes"),
        ({"shape": [3, 4, 6]}, r"data\.shape=\[3, 4, 6\] is not the shape \[3, 6, 4\].*data\.axes=nhwc"),
        (
            {"shape": [4, 3, 6], "axes": "nhcw"},
            r"data\.shape=\[4, 3, 6\] is not the shape \[4, 6, 3\].*data\.axes=nhcw",
        ),
        ({"shape": [3, 6, 5]}, "has 90 values, a row of .* has 72"),
    ],
)
def test_axes_and_shapes_that_do_not_fit(keys, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        built(saved(tmp_path, RNG.normal(size=(20, 6, 4, 3))), **keys)


def test_a_shape_says_which_axis_holds_the_channels(tmp_path):
    values = RNG.normal(size=(20, 5, 6, 7))
    assert rows(Arrays(saved(tmp_path, values), shape=[5, 6, 7])) == as_rows(values)
    assert rows(Arrays(saved(tmp_path, np.moveaxis(values, 1, -1)), shape=[5, 6, 7])) == as_rows(values)
    flat = Arrays(saved(tmp_path, values.reshape(20, -1)), shape=[5, 6, 7])
    assert rows(flat) == as_rows(values) and "each example reshaped to [5, 6, 7] as data.shape says" in flat.describe()
    path = tmp_path / "t.csv"
    np.savetxt(path, values.reshape(20, -1), delimiter=",")
    table = Arrays(str(path), shape=[5, 6, 7])
    assert rows(table) == as_rows(values) and "reshaped to [5, 6, 7]" in table.describe()
    with pytest.raises(ValueError, match=r"data\.axes=cn is for \.npy and \.npz"):
        built(str(path), axes="cn")


# ---- points -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, shape",
    [
        ((40, 2), (4,)),
        ((20, 2, 2), (4,)),
        ((20, 4, 1), (4,)),
        ((20, 1, 4), (4,)),
        ((80,), (4,)),
        ((2, 2), (4,)),
        ((20, 30), (1, 6, 5)),
        ((20, 30, 1), (1, 6, 5)),
        ((20, 5, 6), (1, 6, 5)),
        ((20, 2, 3, 5), (1, 6, 5)),
        ((20, 6, 3, 5), (3, 6, 5)),
        ((20, 5, 6, 3), (3, 6, 5)),
        ((20, 1), (2,)),
        ((20, 1, 1), (1,)),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_points_of_another_shape_are_refused_though_the_product_fits(values, shape, suffix, tmp_path):
    array, path = RNG.normal(size=values), str(tmp_path / f"p.{suffix}")
    np.save(path, array) if suffix == "npy" else np.savez(path, x=array)
    with pytest.raises(
        ValueError, match=r"points=.*points of shape .*the data's shape is .*save an array of shape \(N, "
    ):
        read_points(path, shape)


def test_points_in_the_datas_shape_and_in_tables(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for size, shape in (
        ((20, 4), (4,)),
        ((4,), (4,)),
        ((20,), (1,)),
        ((20, 3, 6, 5), (3, 6, 5)),
        ((20, 6, 5), (1, 6, 5)),
        ((6, 5), (1, 6, 5)),
    ):
        array = RNG.normal(size=size)
        np.testing.assert_array_equal(read_points(saved(tmp_path, array), shape), array.reshape(-1, *shape))
    for size in ((20, 6, 5, 3), (6, 5, 3)):
        array = RNG.normal(size=size)
        points = read_points(saved(tmp_path, array), (3, 6, 5))
        np.testing.assert_array_equal(points, np.moveaxis(array, -1, -3).reshape(-1, 3, 6, 5))
    assert "20 points of shape (3, 6, 5), axes read as (H, W, C)" in caplog.text
    values = RNG.normal(size=(20, 30))
    (tmp_path / "p.csv").write_text("\n".join(",".join(map(repr, row)) for row in values.tolist()))
    points = read_points(str(tmp_path / "p.csv"), (1, 6, 5))
    np.testing.assert_array_equal(points.numpy(), values.reshape(20, 1, 6, 5))
    assert "20 points of shape (1, 6, 5), each a row of 30 numbers" in caplog.text
    with pytest.raises(
        ValueError, match=r"20 points of shape \(30,\), the data's shape is \(15,\): save rows of 15 numbers"
    ):
        read_points(str(tmp_path / "p.csv"), (15,))


def test_conditions_have_exactly_the_shape_of_y(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in RNG.normal(size=(60, 3)).tolist()))
    condition = Conditional(Arrays(str(table)), ["a", "b"]).condition
    rows = RNG.normal(size=(6, 2))
    assert condition.asking(saved(tmp_path, rows)).asked.tolist() == rows.tolist()
    assert condition.asking(saved(tmp_path, rows[0])).asked.tolist() == rows[:1].tolist()
    (tmp_path / "y.csv").write_text("b;a\n" + "\n".join(f"{b};{a}".replace(".", ",") for a, b in rows.tolist()))
    assert condition.asking(str(tmp_path / "y.csv")).asked.tolist() == rows.tolist()
    for shape in ((12,), (3, 2, 2), (4, 3), (6, 2, 1)):
        with pytest.raises(ValueError, match=r"condition=.*y's \(a, b\) shape is \(2,\)"):
            condition.asking(saved(tmp_path, RNG.normal(size=shape)))
    np.savez(tmp_path / "xy.npz", x=RNG.normal(size=(60, 2)), y=RNG.normal(size=(60, 2, 2)))
    with pytest.raises(ValueError, match=r"data\.condition=\['y'\]: y has the shape \(60, 2, 2\)"):
        Conditional(Arrays(str(tmp_path / "xy.npz"), key="x"), ["y"])


# ---- parquet and odd arrays -------------------------------------------------------------------------------------


def test_columns_of_parquet_types(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    import datetime
    import decimal

    def read(key=None, metadata=None, **columns):
        table = arrow.table(columns)
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
        return built(str(tmp_path / "t.parquet"), key=key)

    x = RNG.normal(size=60)
    quarters = [decimal.Decimal(i) / 4 for i in range(60)]
    data = read(a=arrow.array(quarters), b=x, c=arrow.array([True, False] * 30))
    assert rows(data) == as_rows(np.stack([np.arange(60) / 4, x, np.arange(60) % 2 == 0], 1))
    assert "decimals of column a rounded to float64" in data.describe()
    data = read(a=arrow.array([1.5, 2.5, 3.5] * 20).dictionary_encode(), **{"a.b": x})
    assert data.labels() == ["a", "a.b"] and rows(data) == as_rows(np.stack([[1.5, 2.5, 3.5] * 20, x], 1))
    data = read(a=arrow.array([2**60 + i * 2**40 for i in range(60)]), b=x)
    assert "integers of column a beyond 2^53 rounded to float64" in data.describe()
    pandas = {b"pandas": b'{"index_columns": ["id"]}'}
    data = read(metadata=pandas, id=range(60), b=x)
    assert data.labels() == ["b"] and "1 column left out (id: pandas' index)" in data.describe()
    assert read(key="id,b", metadata=pandas, id=range(60), b=x).labels() == ["id", "b"]
    for column, kind in (
        ([datetime.datetime(2020, 1, 1)] * 60, "timestamp"),
        ([datetime.date(2020, 1, 1)] * 60, "date"),
        ([[1.0]] * 60, "list"),
        ([{"a": 1}] * 60, "struct"),
        (arrow.nulls(60), "null"),
        (["1"] * 60, "string"),
    ):
        with pytest.raises(ValueError, match=rf"column 'a' is not numeric \(its type is {kind}.*data\.key=\[b\]"):
            read(a=column, b=x)
    twice = arrow.Table.from_arrays([arrow.array(x), arrow.array(x)], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        Arrays(str(tmp_path / "t.parquet"))


def test_odd_arrays_name_what_to_save(tmp_path):
    records = np.zeros(30, dtype=[("a", float), ("b", float)])
    for array, says in (
        (records, "structured_to_unstructured"),
        (np.arange(10).astype("M8[D]"), "values of type datetime64"),
        (np.arange(10).astype("m8[s]"), "values of type timedelta64"),
        (np.array([[1j]]), "values of type complex128"),
        (np.array([["1.5"]]), "values of type <U3"),
    ):
        with pytest.raises(ValueError, match=rf"data\.path=.*{says}"):
            built(saved(tmp_path, array))
    np.savez(tmp_path / "x.npz", x=np.zeros((30, 2)), z=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="array 'z' cannot be read .*pickled objects"):
        Arrays(str(tmp_path / "x.npz"), key="z")
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(30, 2)), z=np.array([{}], dtype=object))
    assert "1 array left out (z)" in Arrays(str(tmp_path / "x.npz"), key="x").describe()
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="the file cannot be read"):
        Arrays(str(tmp_path / "x.npz"))
