"""task=impute and task=restore: measurements, draws and metrics."""

import json

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.conf import schema
from scoresde.data import Data, read_points
from scoresde.figures import restored
from scoresde.samplers import Dense, MaskFile, PiGDM, Superresolve
from scoresde.tasks import Restore
from scoresde.tasks.restore import coverage

from .conftest import compose, make_sampler, make_sde

CHOICES = {"task": "impute", "data": "mixture", "sde": "vp", "sampler": "unipc", "model": "oracle"}
PLANE = ["data=mixture", "model=oracle", "sde=vp", "sampler=unipc", "sampler.steps=12", "data.count=2000"]
PLANE += ["data.test_count=200"]
PICTURES = [*PLANE, "data.shape=[3,8,6]", "data.means=[-1,0,1.5]", "data.stds=[0.5,0.3,0.4]"]


def job(folder, *words):
    """(metrics, arrays) of a run."""
    run(compose(*words), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text()), np.load(folder / "run" / "restored.npz")


NOISY = ["operator.noise=0.3", "task.draws=1", "count=64", "conditioner=exact", "sampler.steps=40"]
CONDITIONERS = {
    "pigdm": [],
    "mmps": [],
    "dps": ["conditioner.scale=0.1", "sampler=ancestral", "sampler.steps=20"],
    "dps_gaussian": ["operator.noise=0.5"],
    "projection": ["sampler=pc", "sampler.steps=20"],
    "repaint": ["sampler=em", "sampler.steps=20"],
    "tds": ["sampler=ancestral", "sampler.steps=20", "conditioner.particles=8"],
    "smcdiff": ["conditioner.particles=8", "conditioner.steps=20"],
    "auto": ["conditioner.vectors.particles=8", "conditioner.vectors.steps=20"],
    "exact": [],
}


@pytest.mark.parametrize("name", CONDITIONERS)
def test_draws_do_not_depend_on_the_batch_and_keep_what_is_known(tmp_path, name):
    words = ["task=impute", *PLANE, f"conditioner={name}", "count=5", "task.draws=4", *CONDITIONERS[name]]
    found = [job(tmp_path, *words, f"task.batch={batch}", "dtype=float64")[1] for batch in (4, 100)]
    assert np.abs(found[0]["x"] - found[1]["x"]).max() < 1e-9 and found[0]["x"].shape == (5, 4, 2)
    assert found[0]["mask"].tolist() == [[True, False]] * 5
    if "operator.noise=0.5" not in words:
        assert (found[0]["x"][:, :, 0] == found[0]["truth"][:, None, 0]).all(), "bitwise"
    assert found[0]["x"][:, :, 1].std(1).max() > 0


def test_every_conditioner_is_tried():
    from .conftest import choices

    assert set(CONDITIONERS) == set(choices("conditioner"))


def test_exact_conditioning_is_at_the_floor_and_covers(tmp_path):
    words = ["task=impute", *PLANE, "conditioner=exact", "sampler.steps=40", "count=128", "task.draws=30"]
    metrics, arrays = job(tmp_path, *words)
    assert metrics["known_deviation_data_units"] == 0 and metrics["times_the_floor"] < 1.2
    assert abs(metrics["coverage"] - metrics["coverage_nominal"]) < 4 * (0.16 / 128) ** 0.5
    unknown, truth = arrays["x"][:, :, 1], arrays["truth"][:, 1]
    assert metrics["spread_data_units"] == pytest.approx(unknown.std(1, ddof=1).mean())
    assert metrics["rmse_of_mean_data_units"] == pytest.approx(np.sqrt(np.mean((unknown.mean(1) - truth) ** 2)))


def test_coverage_of_exchangeable_draws_is_the_nominal_one():
    x = torch.randn(40_000, 10, 1)
    found = coverage(x[:, :9], x[:, 9], torch.ones(40_000, 1, dtype=torch.bool))
    assert found["coverage_nominal"] == pytest.approx(0.8) and abs(found["coverage"] - 0.8) < 0.01
    narrow = coverage(0.3 * x[:, :9], x[:, 9], torch.ones(40_000, 1, dtype=torch.bool))
    assert narrow["coverage"] < 0.5


def test_nothing_open_is_no_ratio_of_roundings(tmp_path):
    np.save(tmp_path / "tall.npy", np.random.default_rng(0).normal(size=(3, 2)))
    words = ["task=restore", *PLANE, "operator=matrix", f"operator.path={tmp_path}/tall.npy", "count=3", "task.draws=3"]
    metrics, _ = job(tmp_path, *words)
    assert metrics["sliced_wasserstein_to_exact"] < 1e-4 and "times_the_floor" not in metrics


@pytest.mark.parametrize("operator", ["colourise", "superresolve", "deblur", "half", "box", "random"])
def test_pictures_agree_with_what_was_measured(tmp_path, operator):
    words = ["task=restore", *PICTURES, f"operator={operator}", "count=3", "task.draws=3", "dtype=float64"]
    metrics, arrays = job(tmp_path, *words)
    A = schema.build(schema.settle(compose(*words)["operator"], (3, 8, 6), {"shape": [3, 8, 6]}), "operator")
    y = A.rows(torch.arange(3).repeat_interleave(3))(torch.from_numpy(arrays["x"]).flatten(0, 1))
    assert np.abs(y.numpy().reshape(3, 3, *y.shape[1:]) - arrays["y"][:, None]).max() < 1e-9
    assert metrics.get("misfit", 0.0) < 1e-9
    metrics, arrays = job(tmp_path, *words, *NOISY)
    assert 0.8 < metrics["misfit"] < 1.2, "in stds of the noise"
    assert 0.2 < np.std(arrays["y"] - A.rows(torch.arange(64))(torch.from_numpy(arrays["truth"])).numpy()) < 0.4


def test_the_default_operators(tmp_path):
    assert compose("task=impute")["operator"]["_target_"] == "samplers.Missing"
    assert compose("task=restore")["operator"]["_target_"] == "samplers.Superresolve"
    assert compose("task=restore", "operator=deblur")["operator"]["_target_"] == "samplers.Deblur"


# The user's own


@pytest.fixture
def table(tmp_path):
    """Three correlated columns of different units, and a network that knows nothing, in its own folder."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    values = np.stack([100 + 20 * a, 0.01 * (a + 0.5 * rng.normal(size=400)), rng.normal(size=400)], 1)
    path = tmp_path / "mine.csv"
    path.write_text("height,width,age\n" + "\n".join(",".join(map(str, row)) for row in values))
    training = ["training.vectors.steps=400", "training.vectors.batch=256", "model.vectors.width=32"]
    return ["data=arrays", f"data.path={path}", "sde=vp", "sampler=unipc", "sampler.steps=15", *training,
            f"store={tmp_path}/store"]  # fmt: skip


def test_a_table_with_gaps_is_filled_in(tmp_path, table, monkeypatch):
    drawn = []
    monkeypatch.setattr(restored, "restored_gaps", lambda *_, labels: drawn.append(labels) or tmp_path / "a.png")
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("age,height,width\n,130,\n1.5,,0.0\n0.2,60,NaN\n")
    metrics, arrays = job(tmp_path, "task=impute", *table, f"points={gaps}", "task.draws=200")
    x = arrays["x"]
    assert metrics["count"] == 3 and metrics["known_deviation_data_units"] == 0 and "coverage" not in metrics
    assert drawn == [["height", "width", "age"]], "a picture that needs no truth"
    assert arrays["mask"].tolist() == [[True, False, False], [False, True, True], [True, False, True]]
    assert (x[0, :, 0] == 130).all() and (x[1, :, 1] == 0.0).all() and (x[2, :, 2] == 0.2).all()
    assert x[0, :, 1].mean() > 0.004 > -0.004 > x[2, :, 1].mean(), "width goes with height, in its own unit"


def test_columns_by_name_and_a_matrix_in_the_tables_units(tmp_path, table):
    words = ["task=impute", *table, "operator=columns", "operator.known=[height,age]", "count=20", "task.draws=20"]
    metrics, arrays = job(tmp_path, *words)
    assert arrays["mask"][0].tolist() == [True, False, True] and metrics["known_deviation_data_units"] == 0
    np.save(tmp_path / "a.npy", np.array([[1.0, 0.0, 0.0], [0.01, 100.0, 1.0]]))
    words = ["task=restore", *table, "operator=matrix", f"operator.path={tmp_path}/a.npy", "task.draws=30"]
    metrics, arrays = job(tmp_path, *words, "count=30")
    y = arrays["x"] @ np.load(tmp_path / "a.npy").T
    assert np.abs(y - arrays["y"][:, None]).max() < 1e-4 * np.abs(y).max()
    np.save(tmp_path / "y.npy", arrays["y"][:2])
    metrics, own = job(tmp_path, *words, f"points={tmp_path}/y.npy")
    assert metrics["count"] == 2 and "truth" not in own and np.array_equal(own["y"], arrays["y"][:2])


def test_points_say_what_is_wrong_with_them(tmp_path, table):
    np.save(tmp_path / "whole.npy", np.ones((2, 3)))
    np.save(tmp_path / "gaps.npy", np.array([[100.0, np.nan, 0.0]]))
    np.save(tmp_path / "inf.npy", np.array([[100.0, np.inf, np.nan]]))
    small = [*table, "training.vectors.steps=2", "task=impute", "task.draws=3"]
    for words, message in [
        ([f"points={tmp_path}/whole.npy"], "holds no NaN, so that nothing is unknown"),
        ([f"points={tmp_path}/gaps.npy", "operator=half"], "type operator=missing to fill in the NaNs"),
        ([f"points={tmp_path}/inf.npy"], "1 value is infinite, in column 1"),
        ([f"points={tmp_path}/gaps.npy", "task=likelihood"], "1 value is missing"),
    ]:
        words = [word for word in small if not (word.startswith("task") and "task=likelihood" in words)] + words
        with pytest.raises(ValueError, match=message):
            run(compose(*words), CHOICES, tmp_path / "run")
    metrics, arrays = job(tmp_path, *small, f"points={tmp_path}/whole.npy", "operator=half")
    assert (arrays["x"][:, :, :2] == 1).all(), "whole points lose what a mask hides"


def test_gaps_in_integers(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.array([[3.0, np.nan], [np.nan, 7.0]]))
    assert np.array_equal(read_points(path, (2,), 8, missing=True).numpy(), np.load(path), equal_nan=True)
    with pytest.raises(ValueError, match="allows 0 ... 4"):
        read_points(path, (2,), 5, missing=True)
    np.save(path, np.array([[3.5, np.nan]]))
    with pytest.raises(ValueError, match="allows integers only"):
        read_points(path, (2,), 8, missing=True)


def test_digits_with_missing_pixels(tmp_path):
    """Integers stay what they are, in their bins; NaN pixels are filled with integers."""
    from scoresde.data import Digits

    digits = Digits().test[:2].double()
    digits[:, :, :, 5:] = float("nan")
    np.save(tmp_path / "gaps.npy", digits.numpy())
    words = ["task=impute", "sampler=unipc", "sampler.steps=5", "training.steps=3", "training.batch=8", "task.draws=3"]
    small = ["model.channels=[8]", "model.attention=[]", f"store={tmp_path}/store", f"points={tmp_path}/gaps.npy"]
    metrics, arrays = job(tmp_path, *words, *small)
    assert arrays["x"].dtype == np.uint8 and arrays["x"].shape == (2, 3, 1, 8, 8) and arrays["x"].max() <= 16
    assert (arrays["x"][..., :5] == digits.numpy()[:, None, :, :, :5]).all() and metrics["count"] == 2


def test_measurements_of_integers_are_of_the_middle_of_their_bins(tmp_path):
    """A user's y = A k of integers k: what is drawn is continuous, and k stands for [k, k + 1)."""
    k = torch.randint(0, 4, (5, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    A = Superresolve((1, 4, 6))
    np.save(tmp_path / "y.npy", A(k.double()).numpy())
    task = Restore(make_sampler("em"), A, PiGDM(), points=str(tmp_path / "y.npy"))
    problem = task.pose(Data(k, k, 0.0, 1.0, levels=4, shuffle=False))
    assert torch.allclose(problem.y, A(k + 0.5).double()) and problem.truth is None


def test_measurements_are_the_y_of_an_npz(tmp_path):
    A, x = Superresolve((1, 4, 4)), torch.rand(5, 1, 4, 4, dtype=torch.float64)
    np.savez(tmp_path / "xy.npz", x=x.numpy(), y=A(x).numpy())
    task = Restore(make_sampler("em"), A, PiGDM(), points=str(tmp_path / "xy.npz"))
    data = Data(x, x, 0.0, 1.0, shuffle=False)
    assert torch.equal(task.pose(data).y, A(x))
    np.savez(tmp_path / "xy.npz", x=x.numpy(), y=x.numpy())
    with pytest.raises(ValueError, match=r"the measurement's shape is \(1, 2, 2\)"):
        task.pose(data)


def test_a_matrix_wider_than_its_rank_is_one_measurement():
    """Rows that repeat each other do no harm."""
    once = Dense((2,), 0.3, torch.tensor([[1.0, 0.5]]))
    twice = Dense((2,), 0.3 * 2**0.5, torch.tensor([[1.0, 0.5], [1.0, 0.5]]))
    x, r = torch.randn(4, 2, dtype=torch.float64), torch.full((4,), 0.7, dtype=torch.float64)
    from scoresde.samplers import Measurement

    pulls = []
    for operator in (once, twice):
        measurement = Measurement(operator, operator(x), operator.noise)
        pulls.append(measurement.pull(measurement.residual(torch.zeros_like(x)), r))
    assert torch.allclose(*pulls)


def test_too_few_masks_are_refused_before_a_training(tmp_path):
    np.save(tmp_path / "masks.npy", np.eye(2))
    data = Data(torch.randn(9, 2), torch.randn(9, 2), 0.0, 1.0)
    with pytest.raises(ValueError, match="holds 2 masks, and sample 8 .* count=2"):
        Restore(make_sampler("em"), MaskFile((2,), str(tmp_path / "masks.npy")), PiGDM()).check(make_sde("vp"), data)
