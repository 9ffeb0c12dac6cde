"""Distances of columns with units of their own, and the one unit system of a run's pictures."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from scoresde import figures
from scoresde.data import Data
from scoresde.figures.evaluation import evaluation
from scoresde.figures.latent import generators
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import Columns, Film, PiGDM
from scoresde.sde_lib import VE, VP
from scoresde.tasks import sample
from scoresde.tasks.parts.out_of_range import samples_out_of_range
from scoresde.tasks.parts.record import Record
from scoresde.tasks.restore import Problem, Restore
from scoresde.tasks.studies.generators import Generators
from scoresde.tasks.studies.ruler import Ruler

from .conftest import GaussianScore, make_sampler

UNITS = torch.tensor([1e-3, 1.0, 1e7], dtype=torch.float64)


def normals(seed: int, count: int = 4000) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(units: torch.Tensor) -> Data:
    """Columns N(5, 1) in units of their own."""
    shift = 5 * units
    return Data(normals(0) * units + shift, normals(1) * units + shift, shift, units, shuffle=False)


def test_each_column_counts_alike_and_units_change_nothing():
    own, plain = table(UNITS), table(torch.ones(3, dtype=torch.float64))
    assert (own.distance_unit, plain.distance_unit) == ("std", "data")
    for column in range(3):  # a fault of one column is seen whatever its unit
        z = normals(2) + 5
        z[:, column] = 5
        found, known = sample.distances(z * UNITS, own), sample.distances(z, plain)
        assert found["sliced_wasserstein"] == pytest.approx(known["sliced_wasserstein"], rel=1e-9)
        assert found["sliced_wasserstein"] > 5 * found["sliced_wasserstein_floor"]
        assert (found["distance_unit"], known["distance_unit"]) == ("std", "data")
        rulers = [Ruler(data, 4000)(data.encode(r))["sliced_wasserstein"] for data, r in ((own, z * UNITS), (plain, z))]
        assert rulers[0] == pytest.approx(rulers[1], rel=1e-9)
        judged = [Generators.measure(None, r, data, Whole()) for data, r in ((own, z * UNITS), (plain, z))]
        for key in ("sliced_wasserstein", "precision", "recall"):
            assert judged[0][key] == pytest.approx(judged[1][key], rel=1e-9)


@pytest.mark.parametrize("units", [UNITS, torch.ones(3, dtype=torch.float64)], ids=["own", "one"])
def test_samples_far_outside_the_data_are_counted_and_named(caplog, units):
    """Two of 1,000 samples are outliers in the column of the smallest unit, which no distance in data units shows."""
    data, r = table(units), (normals(2, 1000) + 5) * units
    assert samples_out_of_range(r, data) == {"samples_out_of_range": 0} and not caplog.text
    low, high = (float(end) for end in (data.train[:, 0].min(), data.train[:, 0].max()))
    r[[3, 70], 0] = torch.tensor([high + 1.1 * (high - low), low - 3 * (high - low)], dtype=torch.float64)
    r[5, 0] = high + 0.9 * (high - low)
    assert samples_out_of_range(r, data) == {"samples_out_of_range": 2}
    assert "2 of 1000 lie further outside the training part's range than it is wide: column 0 reaches" in caplog.text
    r[9, 1] = math.nan
    assert samples_out_of_range(r, data) == {"samples_out_of_range": 3}
    whole = Data(torch.randint(0, 9, (20, 1, 4, 4)), torch.randint(0, 9, (5, 1, 4, 4)), 4.0, 2.0, levels=9)
    assert samples_out_of_range(whole.test.double() + 90, whole) == {}


class Whole:
    """A judge for whom all points are of one class."""

    def coverage(self, r):
        from scoresde.metrics import Coverage

        return Coverage(torch.ones(1), 1, 0.0, None)


def test_values_of_one_scale_keep_their_unit():
    """Pixels, and isotropic mixtures: a distance of two grey levels is 2."""
    k = torch.randint(0, 200, (500, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    data = Data(k, k.flip(0), 128, 128, 256, shuffle=False)
    moved = sample.distances(k.flip(0).double() + 2, data)["sliced_wasserstein"]
    assert moved == pytest.approx(sliced_wasserstein(k.flip(0).double() + 2, k.flip(0).double()), rel=1e-9)
    assert data.distance_unit == "data"


@pytest.mark.parametrize("sde", [VE(), VP()], ids=["ve", "vp"])
def test_pictures_of_a_run_are_in_data_units(sde, tmp_path, monkeypatch):
    """The paths end in the samples, and the arrows are the gradient by the data's own coordinates."""
    seen = {}
    for name in ("trajectories", "score_field"):

        def keep(*given, name=name, **keys):
            seen[name] = given, keys
            return tmp_path / f"{name}.png"

        monkeypatch.setattr(figures, name, keep)
    units = torch.tensor([0.01, 300.0], dtype=torch.float64)
    shift = torch.tensor([7.0, -2000.0], dtype=torch.float64)
    draws = [normals(k)[:, :2] * units + shift for k in (0, 1)]
    data = Data(*draws, shift, units, shuffle=False)
    film = Film(50, 3)
    x = data.encode(draws[1][:50])
    film.states, film.times = [3 * x, x], [sde.T, sde.eps]
    task = sample.Sample.__new__(sample.Sample)
    object.__setattr__(task, "device", "cpu")
    object.__setattr__(task, "dtype", "float64")
    score = GaussianScore(sde)
    task.show(sde, score, data, draws[1][:50], None, sample.Judged(), film, Record(tmp_path))

    (paths, _), keys = seen["trajectories"]
    end = math.sqrt(
        float(sde.alpha(torch.tensor(sde.eps))) ** 2 * data.std**2 + float(sde.sigma(torch.tensor(sde.eps))) ** 2
    )
    torch.testing.assert_close(torch.from_numpy(paths[-1]), data.decode(x * data.std / end), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(keys["data"], data.test.double()[: len(keys["data"])])

    (across, up, fields, times, _), keys = seen["score_field"]
    assert abs(float(across.mean()) - 7) < 0.02 and abs(float(up.mean()) + 2000) < 600
    for t, field in zip(times, fields, strict=True):
        t = torch.tensor(t, dtype=torch.float64)
        noise = float(sde.sigma(t) / sde.alpha(t))
        r = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)
        exact = -(r - shift) / (units.square() * (1 + noise**2))  # of N(shift, units^2 (1 + k^2))
        torch.testing.assert_close(field, exact, rtol=1e-6, atol=1e-9)


def words_of(figure: Figure) -> str:
    """All that is written on the axes of a figure."""
    places = [axes for part in (figure, *figure.subfigs) for axes in part.axes]
    ticks = [tick.get_text() for axes in places for tick in axes.get_yticklabels()]
    return " | ".join(
        [*ticks, *(v for axes in places for v in (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()))]
    )


@pytest.mark.parametrize("unit, words", [("std", "(stds of the columns)"), ("data", "(data units)")])
def test_pictures_name_the_unit_of_a_distance(unit, words, tmp_path, monkeypatch):
    """In every picture that shows one; and the score's, which is no distance."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **keys: drawn.append(self))
    row = {"method": "em", "sde": "ve", "score": "oracle", "nfe": 10, "seconds": 1.0, "sliced_wasserstein": 0.1}
    row |= {"endpoint_rms": 0.1}
    x, path = torch.randn(50, 2).numpy(), tmp_path / "a.png"
    figures.work_precision([row, row | {"nfe": 20}], path, 10, None, unit)
    metrics = {"sliced_wasserstein": 0.1, "sliced_wasserstein_floor": 0.05, "distance_unit": unit}
    evaluation(x, x, metrics, {}, [], path)
    judged = metrics | {"modes_found": 1}
    generators({"gan": x}, x, {"gan": [judged]}, judged, 1, path, None, unit)
    figures.summary_plot([metrics | {"choices": f"sde={sde}", "status": "ok"} for sde in ("ve", "vp")], path)
    assert all(words in words_of(each) for each in drawn), [words_of(each) for each in drawn]
    assert "exact flow (model units)" in words_of(drawn[0])
    figures.score_field([0.0, 1.0], [0.0, 1.0], [torch.ones(2, 2, 2).numpy()], [0.5], path)
    assert "length of the score (1 / data unit)" in words_of(drawn[-1])


def test_posterior_spreads_of_columns_count_alike():
    """In raw units they are those of the largest column."""
    found = {}
    for name, units in (("own", UNITS), ("plain", torch.ones(3, dtype=torch.float64))):
        data = table(units)
        task = Restore(make_sampler("unipc", steps=4), Columns((3,), [0]), PiGDM())
        draws = (normals(2, 40).reshape(10, 4, 3) + 5) * units
        problem = Problem(task.operator, data.test[:10] * torch.tensor([1.0, 0, 0]), data.test[:10])
        found[name] = task.measures(data, problem, draws)
    assert found["own"]["spread_stds"] == pytest.approx(found["plain"]["spread_data_units"], rel=1e-9)
    assert found["own"]["rmse_of_mean_stds"] == pytest.approx(found["plain"]["rmse_of_mean_data_units"], rel=1e-9)
    assert not any(key.endswith("_stds") for key in found["plain"])
