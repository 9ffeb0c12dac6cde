"""Paths of codes: the great circle, its limits, ends that are the data, and the law of what lies between."""

import json
import math

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.data import Data
from scoresde.models import Oracle
from scoresde.tasks import Interpolate, Record
from scoresde.tasks.interpolate import linear, normal, spherical

from .conftest import SDES, GaussianScore, compose, draw_mixture, job_of, make_sde, mixture

U = torch.linspace(0, 1, 11, dtype=torch.float64)
CHOICES = {"task": "interpolate", "data": "mixture", "sde": "ve", "sampler": "ode", "model": "oracle"}


def interpolate(folder, sde, score, data: Data, **keys) -> tuple[dict, dict]:
    record = Record(folder)
    metrics = Interpolate(dtype="float64", **keys)(job_of(sde, score, data, record))
    record.close()
    return metrics, dict(np.load(folder / "interpolation.npz"))


def job(folder, *overrides: str) -> dict:
    run(compose("task=interpolate", f"store={folder}/store", *overrides), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


# --- the paths --------------------------------------------------------------------------------------------------------


def test_the_great_circle_turns_evenly_and_keeps_the_radius():
    """In the plane it is a rotation: z(u) = r (cos, sin)(phi_0 + u omega), for unequal lengths r linear in u."""
    phi, omega = torch.tensor([0.3, -2.0, 1.0]).double(), torch.tensor([1e-9, 2.0, 3.14]).double()
    r0, r1 = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.0, 0.3, 5.0]).double()

    def at(angle, r):
        return torch.stack((r * angle.cos(), r * angle.sin()), -1)

    path = spherical(at(phi, r0), at(phi + omega, r1), U)
    r = r0[:, None] + U * (r1 - r0)[:, None]
    torch.testing.assert_close(path, at(phi[:, None] + U * omega[:, None], r), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [spherical, normal, linear])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_bitwise_the_codes(path, dtype):
    a, b = torch.randn(5, 3, 4, 6, dtype=dtype), torch.randn(5, 3, 4, 6, dtype=dtype)
    z = path(a, b, U.to(dtype))
    assert z.shape == (5, 11, 3, 4, 6) and z.dtype == dtype
    assert torch.equal(z[:, 0], a) and torch.equal(z[:, -1], b)


def test_equal_codes_stay_where_they_are():
    a = torch.randn(4, 6, dtype=torch.float64)
    assert torch.allclose(spherical(a, a, U), a[:, None].expand(-1, 11, -1), rtol=1e-14)


def test_opposite_codes_have_no_great_circle():
    a = torch.randn(4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="path 2 have opposite codes.*task.path=normal"):
        spherical(a, torch.where(torch.arange(4)[:, None] == 2, -3 * a, a + 1), U)


def test_what_lies_between_has_the_law_of_its_ends():
    """Variance 1 at every u on the quarter circle, (1 - u)^2 + u^2 on the chord; on the great circle nearly 1 in many
    dimensions.
    """
    a, b = torch.randn(2, 4000, 50, dtype=torch.float64)
    for path, expected in ((normal, 1 + 0 * U), (linear, (1 - U) ** 2 + U**2), (spherical, 1 + 0 * U)):
        assert torch.allclose(path(a, b, U).square().mean((0, 2)), expected, atol=0.02)


# --- the task ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SDES)
def test_ends_are_the_data_within_the_round_trip(name, tmp_path):
    sde, x = make_sde(name), draw_mixture(mixture((2,)), 20, (2,))
    data = Data(3 * x + 1, 3 * x + 1, 1.0, 3.0, shuffle=False)
    metrics, arrays = interpolate(tmp_path, sde, Oracle(sde, mixture((2,))), data, frames=4, count=10)
    ends = arrays["x"][:, [0, -1]]
    assert np.abs(ends - (3 * x + 1).numpy().reshape(10, 2, 2)).max() == metrics["end_error_worst_data_units"]
    assert metrics["end_error_worst_stds"] < 1e-3 and arrays["x"].shape == (10, 4, 2)


@pytest.mark.parametrize("path", ["spherical", "normal", "linear"])
def test_on_a_gaussian_the_decoded_path_is_the_path_of_the_data(path, tmp_path):
    """The flow of N(0, s^2) is a multiple of x, and each of the paths commutes with that."""
    sde, x = make_sde("vp"), 0.7 * torch.randn(6, 2, 3, 4, dtype=torch.float64)
    keys = {"path": path, "frames": 7, "rtol": 1e-8, "atol": 1e-8, "temperature": 0.6}
    metrics, arrays = interpolate(
        tmp_path, sde, GaussianScore(sde, 0.0, 0.7), Data(x, x, 0.0, 1.0, shuffle=False), **keys
    )
    expected = {"spherical": spherical, "normal": normal, "linear": linear}[path](x[::2], x[1::2], U[:7] / U[6])
    np.testing.assert_allclose(arrays["x"], 0.6 * expected.numpy(), rtol=1e-5, atol=1e-6)
    assert "end_error_rms_data_units" not in metrics, "at another temperature the ends are not the data"


def test_a_path_through_several_points(tmp_path):
    sde, x = make_sde("vp"), draw_mixture(mixture((2,)), 7, (2,))
    np.save(tmp_path / "p.npy", x.numpy()[:6])
    data, score = Data(x, x, 0.0, 1.0, shuffle=False), Oracle(sde, mixture((2,)))
    _, arrays = interpolate(tmp_path, sde, score, data, through=3, frames=5, points=f"{tmp_path}/p.npy")
    assert arrays["x"].shape == (2, 9, 2) and np.allclose(arrays["u"], np.linspace(0, 2, 9))
    np.testing.assert_allclose(arrays["x"][:, ::4], x[:6].reshape(2, 3, 2), atol=1e-3)
    np.testing.assert_allclose(arrays["ends"], x[:6].reshape(2, 3, 2))


@pytest.mark.painted
@pytest.mark.parametrize("shape", [(1,), (2,), (8,), (1, 4, 4), (3, 8, 6)])
def test_every_shape_has_a_picture(shape, tmp_path):
    sde, x = make_sde("vp"), torch.randn(20, *shape, dtype=torch.float64)
    keys = {"path": "normal", "rtol": 1e-2, "atol": 1e-2, "count": 3, "frames": 3, "batch": 4}
    interpolate(tmp_path, sde, GaussianScore(sde), Data(x, x, 0.0, 1.0, shuffle=False), **keys)
    assert (tmp_path / "interpolation.png").stat().st_size > 3000


def test_integers_are_encoded_as_points_of_their_bins(tmp_path):
    sde, r = make_sde("vp"), torch.randint(0, 16, (4, 1, 4, 5))
    _, arrays = interpolate(
        tmp_path, sde, GaussianScore(sde), Data(r, r, 8.0, 4.0, levels=16, shuffle=False), count=2, frames=2
    )
    assert np.array_equal(np.floor(arrays["ends"].reshape(4, 1, 4, 5)), r)
    assert np.abs(arrays["x"] - arrays["ends"]).max() < 1e-2


@pytest.mark.parametrize(
    "override, message",
    [
        ("task.through=1", "task.through=1 must be at least 2"),
        ("task.frames=1", "task.frames=1 must be at least 2"),
        ("task.temperature=0", "task.temperature=0.0 must be positive"),
        ("task.path=round", "task.path=round must be one of spherical, normal, linear"),
        ("task.rtol=0", "task.rtol=0.0 must lie between 0 and 1"),
        ("count=5001", "5001 paths through task.through=2 points need 10002 held-out data, and there are 10000"),
        ("points=three.npy", "holds 3 points, which is no multiple of task.through=2"),
        ("data.means=[1,2,3]", "task.path=spherical needs two dimensions"),
    ],
)
def test_mistakes_name_the_key(override, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("three.npy", np.zeros((3, 2)))
    with pytest.raises((ValueError, OSError)) as caught:
        job(tmp_path, "data=mixture", "model=oracle", override)
    assert message in str(caught.value)


def test_between_two_modes_codes_on_the_sphere_decode_to_data(tmp_path):
    """With the exact score what lies between is as likely as data are, though the modes are far apart."""
    metrics = job(tmp_path, "data=mixture", "model=oracle", "count=200")
    assert metrics["between_nll_nats"] < metrics["ends_nll_nats"] + 0.3
    assert metrics["code_radius_between"] == pytest.approx(metrics["code_radius_ends"], rel=0.02)
    assert math.isclose(metrics["end_error_worst_stds"], 0, abs_tol=1e-3)
