"""Distances of columns with units of their own, and the one unit system of a run's pictures."""

import math

import pytest
import torch

from data import Data
from metrics import sliced_wasserstein
from samplers import Film
from sde_lib import VE, VP
from tasks import figures, sample
from tasks.generators import Generators
from tasks.record import Record
from tasks.ruler import Ruler

from .conftest import GaussianScore

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


class Whole:
    """A judge for whom all points are of one class."""

    def coverage(self, r):
        from metrics import Coverage

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
