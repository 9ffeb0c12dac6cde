"""Data that stand in an order: every subset is a random one, whoever takes it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import Arrays, Conditional, Data, Images, Turned, order, subset
from scoresde.samplers import Missing
from scoresde.tasks import Restore
from scoresde.tasks.parts.conditions import conditions_of
from scoresde.tasks.parts.points import points_of

COUNT = 1200  # of either kind


def dark(rng, shape) -> np.ndarray:
    """Half of the examples dark (2 bits a pixel), half noise (8 bits a pixel), one kind after the other."""
    return np.concatenate([rng.integers(0, levels, size=(COUNT, *shape)) for levels in (4, 256)]).astype(np.uint8)


def folders(root, rng):
    for k, x in enumerate(dark(rng, (5, 5))):
        kind = root / ("dark" if k < COUNT else "noise")
        kind.mkdir(exist_ok=True)
        Image.fromarray(x).save(kind / f"{k:05d}.png")
    return Images(str(root), test_fraction=0.4)


def parquet(root, rng, split=False):
    import io

    import pyarrow
    import pyarrow.parquet

    def encoded(x):
        stream = io.BytesIO()
        Image.fromarray(x).save(stream, "PNG")
        return stream.getvalue()

    for part in ("train", "test") if split else ("train",):
        x = dark(rng, (5, 5))
        columns = {"image": [encoded(each) for each in x], "label": [int(k >= COUNT) for k in range(len(x))]}
        pyarrow.parquet.write_table(pyarrow.table(columns), root / f"{part}-0.parquet")
    return Images(str(root), test_fraction=0.4)


def archive(root, rng):
    np.savez(root / "a.npz", x=dark(rng, (1, 5, 5)), y=np.arange(2 * COUNT) // COUNT)
    return Arrays(str(root / "a.npz"), key="x", labels="y", test_fraction=0.4)


def own(root, rng):
    """A subclass of a user's, whose rows stand as they came."""
    x, y = torch.from_numpy(dark(rng, (1, 5, 5))), torch.arange(2 * COUNT) // COUNT
    return Data(x, x.clone(), 128, 128, 256, y, y.clone())


SORTED = {
    "class folders": folders,
    "parquet": parquet,
    "parquet with a test split": lambda root, rng: parquet(root, rng, split=True),
    "npz": archive,
    "a user's class": own,
}


@pytest.fixture(scope="module", params=SORTED)
def sorted_data(request, tmp_path_factory):
    return SORTED[request.param](tmp_path_factory.mktemp("sorted"), np.random.default_rng(0))


def noisy(x: torch.Tensor) -> float:
    return float((x.flatten(1).amax(1) > 3).double().mean())


def test_every_prefix_holds_both_kinds(sorted_data):
    for part, labels in ((sorted_data.train, sorted_data.train_labels), (sorted_data.test, sorted_data.test_labels)):
        for count in (64, 256, 500):
            bound = 4 * math.sqrt(0.25 / count)
            assert abs(noisy(part[:count]) - 0.5) < bound
        # and each label stayed with its example
        assert torch.equal(part.flatten(1).amax(1) > 3, labels == 1)


def test_statistics_are_those_of_all_examples(sorted_data):
    x = sorted_data.encode(sorted_data.train.double() + 0.5).flatten(1)
    assert sorted_data.std == pytest.approx(float((x - x.mean(0)).square().mean().sqrt()), rel=0.1)
    far = float(torch.cdist(x, x).max())
    assert sorted_data.largest_distance() == pytest.approx(far, rel=0.1)
    kinds = torch.cdist(x[x.amax(1) < -0.9], x[x.amax(1) < -0.9])
    assert float(kinds.max()) < 0.1 * far  # a prefix of the sorted rows would have given this
    mean, variances, _, _ = sorted_data.moments()
    torch.testing.assert_close(mean, x.mean(0), rtol=0, atol=0.05)
    assert float(variances.sum()) == pytest.approx(float(x.var(0).sum()), rel=0.1)


def test_what_a_task_works_on_is_a_random_part(sorted_data):
    assert abs(noisy(points_of(sorted_data, None, 200)) - 0.5) < 4 * math.sqrt(0.25 / 200)
    conditional = Conditional(sorted_data, "labels")
    r, y = points_of(conditional, None, 200), conditions_of(conditional, None, 200)
    assert torch.equal(r.flatten(1).amax(1) > 3, y == 1)


def test_turned_pictures_keep_their_labels(sorted_data, monkeypatch):
    monkeypatch.setattr("scoresde.data.turned.MOST", 4 * 25 * 100)
    turned = Turned(sorted_data)
    assert len(turned.train) == 400 and turned.train_labels.bincount().tolist() == [100] * 4
    assert abs(noisy(turned.train) - 0.5) < 0.2
    as_it_is = turned.train[turned.train_labels == 0]
    known = {bytes(x.numpy()) for x in sorted_data.train}
    assert all(bytes(x.numpy()) in known for x in as_it_is)


def test_some_of_a_users_points_are_a_random_part_with_their_y(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.sort(rng.normal(size=(2000, 1)), 0) * [1.0, 10.0] + [0.0, 3.0]  # sorted, y a function of x
    with open(tmp_path / "a.csv", "w") as stream:
        stream.write("x,y\n" + "".join(f"{a},{b}\n" for a, b in rows))
    data = Conditional(Arrays(str(tmp_path / "a.csv")), ["y"])
    path = str(tmp_path / "a.csv")
    for count in (None, 300):
        r, y = points_of(data, path, count), conditions_of(data, path, count or 2000)
        assert len(r) == len(y) == (count or 2000)
        torch.testing.assert_close(10 * r.double() + 3, y, rtol=0, atol=1e-6)
        assert bool((r.diff(dim=0) >= 0).all())  # the user's sequence
        assert abs(float(r.mean())) < 4 / math.sqrt(len(r))


def test_a_subset_is_a_function_of_its_size_and_nested():
    assert order(1000).sort().values.tolist() == list(range(1000)) and torch.equal(order(1000), order(1000))
    rows = torch.arange(1000)
    small, large = set(subset(rows, 50).tolist()), set(subset(rows, 200).tolist())
    assert len(small) == 50 and small < large
    assert torch.equal(subset(rows, 1000), rows) and torch.equal(subset(rows, None), rows)
    state = torch.get_rng_state()
    order(10)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("value", [1e19, -1e300])
def test_points_beyond_float32_are_refused(value, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)))
    np.save(tmp_path / "p.npy", [[0, 0], [1, value]])
    data = Arrays(str(tmp_path / "x.npy"))
    with pytest.raises(
        ValueError, match=r"points=.*p\.npy: row 1 .*more than 1e\+18 standard deviations from the data"
    ):
        points_of(data, str(tmp_path / "p.npy"), None)
    np.save(tmp_path / "p.npy", [[0, np.nan], [np.nan, value]])
    restore = SimpleNamespace(points=str(tmp_path / "p.npy"), count=None, operator=Missing((2,)))
    with pytest.raises(ValueError, match=r"points=.*p\.npy: row 1 .*more than 1e\+18"):
        Restore.pose(restore, data)
    np.save(tmp_path / "p.npy", [[0, 0], [1, 1e15]])
    assert len(points_of(data, str(tmp_path / "p.npy"), None)) == 2
