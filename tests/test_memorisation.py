"""Copies are caught and fresh draws are not; the statistic against closed forms and another program."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoresde.cli import run
from scoresde.data import Data
from scoresde.metrics import Cells, copying_test, mann_whitney, nearest
from scoresde.samplers import Sampler
from scoresde.tasks import Memorisation, Record
from scoresde.tasks.memorisation import BEYOND, SHARES, Located, caught_from

from .conftest import GaussianScore, compose, job_of, make_sde

RNG = np.random.default_rng


# --- the metric -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 8, 6)])
def test_neighbours_are_the_nearest(shape):
    x, reference = torch.randn(20, *shape), torch.randn(300, *shape)
    reference[7] = x[3]
    distances, who = nearest(x, reference, 3)
    every = (x[:, None] - reference).flatten(2).double().norm(dim=2)
    expected = every.sort(dim=1)
    np.testing.assert_allclose(distances, expected.values[:, :3], rtol=1e-6, atol=1e-7)
    assert np.array_equal(who, expected.indices[:, :3]) and distances[3, 0] == 0 and who[3, 0] == 7


def test_neighbours_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="2 and 3 values"):
        nearest(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="5 nearest neighbours are asked for, and there are 4"):
        nearest(torch.zeros(4, 2), torch.zeros(4, 2), 5)


@pytest.mark.parametrize("digits", [1, 8])
def test_z_is_the_one_of_scipy(digits):
    """Rounded numbers have ties, the others do not."""
    p, q = RNG(0).normal(size=30).round(digits), RNG(1).normal(-0.3, 1, size=50).round(digits)
    found = stats.mannwhitneyu(q, p, alternative="less", method="asymptotic", use_continuity=False)
    assert stats.norm.cdf(mann_whitney(p, q)) == pytest.approx(found.pvalue, rel=1e-9)
    assert mann_whitney(q, p) == pytest.approx(-mann_whitney(p, q))


def test_z_of_distances_that_are_all_smaller_is_the_closed_form():
    n, m = 40, 60
    z = mann_whitney(np.arange(n) + 1000.0, np.arange(m) + 0.0)
    assert z == pytest.approx(-math.sqrt(3 * n * m / (n + m + 1)))
    assert mann_whitney(np.ones(5), np.ones(7)) == 0


def test_where_nothing_is_wrong_c_t_has_its_standard_deviation():
    values = []
    for seed in range(400):
        rng = RNG(seed)
        p, q, a, b = rng.gamma(2, size=120), rng.gamma(2, size=300), rng.integers(0, 4, 120), rng.integers(0, 4, 300)
        scale = np.array([1.0, 10.0, 0.1, 3.0])  # each cell has distances of its own
        found = copying_test(p * scale[a], q * scale[b], a, b)
        assert len(found.z) == 4 and found.std == pytest.approx(0.5, abs=0.06)
        values.append(found.deviations)
    assert np.mean(values) == pytest.approx(0, abs=0.15) and np.std(values) == pytest.approx(1, abs=0.1)


def test_cells_are_weighted_by_held_out_data_and_small_ones_do_not_count():
    p, q = RNG(0).random(50), RNG(1).random(70)
    where_p, where_q = np.repeat([0, 1, 2], [12, 30, 8]), np.repeat([0, 1, 2], [40, 20, 10])
    found = copying_test(p, q, where_p, where_q)
    z = [mann_whitney(p[where_p == k], q[where_q == k]) for k in (0, 1)]
    assert found.statistic == pytest.approx((12 * z[0] + 30 * z[1]) / 42)
    assert found.std == pytest.approx(math.hypot(12, 30) / 42)
    assert math.isnan(copying_test(p[:9], q[:9], where_p[:9], where_q[:9]).statistic)


def test_cells_are_the_clusters():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    k = torch.randint(0, 3, (300,))
    x = (centres[k] + 0.1 * torch.randn(300, 2)).reshape(300, 1, 2)
    found = Cells(x, 3)(x)
    assert len({(int(a), int(b)) for a, b in zip(k, found, strict=True)}) == 3
    assert set(Cells(torch.zeros(20, 2), 3)(torch.zeros(4, 2))) == {0}, "without a warning"


# --- the task ---------------------------------------------------------------------------------------------------------


class Playback(Sampler):
    """A sampler that returns the given examples, over and over."""

    def __init__(self, examples: torch.Tensor):
        self.examples, self.next = examples, 0

    def __call__(self, sde, score, x, randn_like, on_step=None, film=None):
        rows = (self.next + torch.arange(len(x))) % len(self.examples)
        self.next += len(x)
        return self.examples[rows].to(x)


def gaussian(shape, levels=None, count=300) -> tuple[Data, torch.Tensor]:
    """Returns data, and fresh draws from the same distribution in model units."""
    draws = [2 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) + 8 for n in (count, 400, 401)]
    if levels:
        draws = [each.floor().clamp(0, levels - 1).to(torch.uint8) for each in draws]
    data = Data(draws[0], draws[1], 8.0, 2.0, levels, shuffle=False)
    return data, data.encode(data.dequantise(draws[2], None).double())


def judge(folder, data, sampler, **keys) -> tuple[dict, dict]:
    sde, record = make_sde("vp"), Record(folder)
    metrics = Memorisation(sampler, **{"count": 400, **keys})(job_of(sde, GaussianScore(sde), data, record))
    record.close()
    return metrics, dict(np.load(folder / "memorisation.npz"))


CASES = [((2,), None), ((6,), None), ((1, 4, 4), None), ((3, 5, 4), 16)]


@pytest.mark.parametrize("shape, levels", CASES)
def test_a_sampler_that_copies_is_caught(shape, levels, tmp_path):
    data, _ = gaussian(shape, levels)
    noise = 0.01 * torch.randn(len(data.train), *shape)
    copies = data.encode(data.dequantise(data.train, None)) + noise
    metrics, arrays = judge(tmp_path, data, Playback(copies))
    assert metrics["verdict"] == "copying" and metrics["copying"] < -10
    assert (arrays["nearest_train"][:300] == np.arange(300)).mean() > 0.95, "each is paired with what it copies"
    assert metrics["ratio_median"] < 0.2 * metrics["ratio_median_held_out"]
    assert metrics["distance_median"] < 0.2 * metrics["distance_median_held_out"]
    if math.prod(shape) > 2:
        assert metrics["near_duplicates"] > 0.9 and metrics["near_duplicates_held_out"] < 0.02
    assert (tmp_path / "distances.png").exists() and (tmp_path / "pairs.png").exists() == (shape != (6,))


@pytest.mark.parametrize("shape, levels", CASES)
def test_fresh_draws_are_not_and_both_controls_do_as_they_should(shape, levels, tmp_path):
    data, fresh = gaussian(shape, levels)
    metrics, _ = judge(tmp_path, data, Playback(fresh))
    assert metrics["verdict"] == "no copying seen" and abs(metrics["copying"]) < 3
    assert metrics["copying_positive_control"] < -10 and abs(metrics["copying_negative_control"]) < 3
    assert 0 < metrics["caught_from_share"] <= 0.5
    assert metrics["ratio_median"] == pytest.approx(metrics["ratio_median_held_out"], rel=0.1)


def test_a_share_of_copies_is_caught_where_it_is_said_to_be(tmp_path):
    data, fresh = gaussian((6,))
    share = judge(tmp_path / "a", data, Playback(fresh))[0]["caught_from_share"]
    mixed = fresh[:400].clone()
    few = round(1.5 * share * 400)
    mixed[:few] = data.encode(data.train[:few].double())
    assert judge(tmp_path / "b", data, Playback(mixed))[0]["verdict"] == "copying"


@pytest.mark.parametrize("count, distance", [(300, 0.0), (300, 0.4), (80, 0.0), (40, 0.0), (30, 0.0), (300, 2.0)])
def test_the_least_share_that_is_seen(count, distance):
    """It is in SHARES; a set with this share of copies is seen, and none with a smaller one is."""
    rng = RNG(count)
    held_out, cells = rng.random(count) + 0.5, rng.integers(0, 2, count)
    first, second = np.arange(0, count, 2), np.arange(1, count, 2)
    copies = Located(np.full(7, distance), np.arange(7) % 2)  # fewer than are needed: they are repeated
    found = caught_from(Located(held_out, cells), copies, first, second)

    deviations = {}
    for share in SHARES:
        few = round(share * len(first))
        mixed, where = held_out[first].copy(), cells[first].copy()
        mixed[:few], where[:few] = distance, np.arange(few) % 7 % 2
        deviations[share] = copying_test(held_out[second], mixed, cells[second], where).deviations
    seen = [share for share in SHARES if round(share * len(first)) and deviations[share] < -BEYOND]
    assert found == min(seen, default=None)
    assert (found is None) == (distance == 2.0 or count == 30)  # far away, or cells of too few points


def test_samples_too_far_are_underfitting(tmp_path):
    data, fresh = gaussian((6,))
    assert judge(tmp_path, data, Playback(1.5 * fresh))[0]["verdict"] == "underfitting"


def test_a_blind_test_says_so(tmp_path):
    """Copies as far from the training data as held-out data are cannot be distinguished from them."""
    data, fresh = gaussian((6,))
    metrics, _ = judge(tmp_path / "a", data, Playback(fresh), noise=1.5)
    assert metrics["verdict"].startswith("unknown: the test is blind here")
    shifted = Data(data.train, torch.cat((data.test[:200], data.test[200:] + 9)), 8.0, 2.0, shuffle=False)
    metrics, _ = judge(tmp_path / "b", shifted, Playback(fresh), count=5)
    assert metrics["verdict"].startswith("unknown: too few")


def test_distances_between_principal_components(tmp_path):
    """The data have two directions of large variance and noise in the others, which components=2 leaves out."""
    x = torch.cat((20 * torch.randn(300, 2), 0.01 * torch.randn(300, 8)), 1)
    data = Data(x[:200], x[200:], 0.0, 1.0, shuffle=False)
    _, plane = judge(tmp_path / "a", data, Playback(data.encode(x[:50].double())), components=2, count=50)
    np.testing.assert_allclose(plane["distance_train"], 0, atol=1e-9)
    moved = x[:50].double()
    moved[:, 5] += 3
    _, plane = judge(tmp_path / "b", data, Playback(moved), components=2, count=50)
    assert plane["distance_train"].max() < 0.1
    with pytest.raises(ValueError, match="task.components=11 must be at most 10"):
        judge(tmp_path / "c", data, Playback(moved), components=11)
    with pytest.raises(ValueError, match="task.components=11 must be at most 10"):  # before a training
        Memorisation(Playback(moved), components=11).check(make_sde("vp"), data)


# --- the command line -------------------------------------------------------------------------------------------------


def job(folder, *overrides: str) -> dict:
    choices = {"task": "memorisation", "data": "moons", "sde": "ve", "sampler": "em", "model": "mlp"}
    run(compose("task=memorisation", f"store={folder}/store", *overrides), choices, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


def test_samples_of_a_file_need_no_network(tmp_path):
    words = ["data=moons", "data.count=400", "data.test_count=400"]
    from scoresde.data import Moons

    moons = Moons(count=400, test_count=400)
    np.savez(tmp_path / "samples.npz", x=moons.train.numpy())
    metrics = job(tmp_path, *words, f"task.samples={tmp_path}/samples.npz")
    assert metrics["verdict"] == "copying" and metrics["count"] == 400 and "nfe" not in metrics
    assert not (tmp_path / "store").exists()
    np.savez(tmp_path / "samples.npz", x=Moons(count=400, test_count=10, seed=5).train.numpy())
    assert job(tmp_path, *words, f"task.samples={tmp_path}/samples.npz")["verdict"] == "no copying seen"


@pytest.mark.parametrize(
    "override, message",
    [
        ("task.samples=nowhere.npz", "task.samples=nowhere.npz"),
        ("task.cells=0", "task.cells=0 must be at least 1"),
        (
            "task.cells=500",
            "task.cells=500 must be at most 400, the number of training data that form the cells; leave it out",
        ),
        ("task.noise=-1", "task.noise=-1.0 must be at least 0"),
        ("task.components=0", "task.components=0 must be at least 1"),
        ("task.batch=0", "task.batch=0 must be at least 1"),
        ("data.test_count=2", "400 training and 2 held-out examples are too few"),
    ],
)
def test_mistakes_name_the_key(override, message, tmp_path):
    words = ["data=mixture", "model=oracle", "data.count=400", "sampler.steps=2"]
    with pytest.raises((ValueError, OSError)) as caught:
        job(tmp_path, *words, override)
    assert message in str(caught.value)
