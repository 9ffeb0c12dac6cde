"""Codes and the way back: the exact linear map on a Gaussian, and a round trip as good as the tolerance."""

import json
import math

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.data import Data
from scoresde.models import Oracle
from scoresde.sde_lib import VE
from scoresde.tasks import Encode, Record
from scoresde.tasks.encode import identity, normality

from .conftest import SDES, GaussianScore, compose, draw_mixture, job_of, make_sde, mixture
from .test_cli import refused

SCALE, SHIFT = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([10.0, -3.0], dtype=torch.float64)


def planar(x: torch.Tensor) -> Data:
    """Data of two units of their own, held out: SCALE x + SHIFT."""
    return Data(SCALE * x + SHIFT, SCALE * x + SHIFT, SHIFT, SCALE, shuffle=False)


def encode(folder, sde, score, data: Data, second=None, **keys) -> tuple[dict, dict]:
    record = Record(folder)
    metrics = Encode(dtype="float64", **keys)(job_of(sde, score, data, record, other=second))
    record.close()
    return metrics, dict(np.load(folder / "codes.npz"))


def job(folder, *overrides: str) -> dict:
    choices = {"task": "encode", "data": "mixture", "sde": "ve", "sampler": "ode", "model": "oracle"}
    run(compose("task=encode", f"store={folder}/store", *overrides), choices, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, clock", [*((name, "angle") for name in SDES), ("vp", "t"), ("ve", "t")])
def test_on_a_gaussian_the_code_is_the_linear_map(name, clock, tmp_path):
    """z = alpha_T m + (v_T / v_eps)^{1/2} alpha_eps (x - m), from alpha_eps x."""
    sde = make_sde(name)
    score = GaussianScore(sde, 0.3, 0.7)
    x = 0.3 + 0.7 * torch.randn(30, 2, dtype=torch.float64)
    metrics, arrays = encode(tmp_path, sde, score, planar(x), rtol=1e-8, atol=1e-8, clock=clock)
    (mean_eps, v_eps), (mean_T, v_T) = score.moments(sde.eps), score.moments(sde.T)
    alpha = sde.alpha(torch.tensor(sde.eps, dtype=torch.float64))
    z = mean_T + (v_T / v_eps).sqrt() * (alpha * x - mean_eps)
    torch.testing.assert_close(torch.from_numpy(arrays["z"]), z, rtol=1e-6, atol=1e-6 * sde.prior_std)
    np.testing.assert_allclose(arrays["x"], SCALE * x + SHIFT)
    np.testing.assert_allclose(arrays["x_back"], arrays["x"], atol=1e-6)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_the_round_trip_is_as_good_as_the_tolerance(name, tmp_path):
    """And is reported in both units: data units are SCALE times the model's."""
    sde, x, worst = make_sde(name), draw_mixture(mixture((2,)), 50, (2,)), []
    for tolerance in (1e-3, 1e-5, 1e-7):
        keys = {"rtol": tolerance, "atol": tolerance}
        metrics, arrays = encode(tmp_path, sde, Oracle(sde, mixture((2,))), planar(x), **keys)
        error = np.abs(arrays["x_back"] - arrays["x"])
        for unit, values in (("data", error), ("model", error / SCALE.numpy())):
            assert metrics[f"round_trip_rms_{unit}_units"] == pytest.approx(np.sqrt((values**2).mean()))
            assert metrics[f"round_trip_worst_{unit}_units"] == pytest.approx(values.max())
        worst.append(metrics["round_trip_worst_model_units"])
    assert worst[0] > 20 * worst[1] > 400 * worst[2] and worst[2] < 1e-4


def test_codes_are_as_normal_as_a_gaussians_should_be(tmp_path):
    """VE and the mixture's exact score: 4,000 coordinates at the floor; and data that are no draws of it are not."""
    sde, components = make_sde("ve"), mixture((2,))
    score, x = Oracle(sde, components), draw_mixture(components, 2000, (2,))
    metrics, arrays = encode(tmp_path, sde, score, planar(x), rtol=1e-4, atol=1e-4)
    assert metrics["code_ks"] < 2 * metrics["code_ks_floor"]
    assert metrics["code_mean"] == pytest.approx(0, abs=0.06) and metrics["code_std"] == pytest.approx(1, abs=0.04)
    assert metrics["code_std"] == pytest.approx(float(arrays["z"].std()) / 50, rel=1e-4)  # VE's sigma(T) = 50
    metrics, _ = encode(tmp_path, sde, score, planar(0.5 * x), rtol=1e-4, atol=1e-4)
    assert metrics["code_ks"] > 5 * metrics["code_ks_floor"]


def test_the_distance_and_its_floor():
    scipy = pytest.importorskip("scipy.stats")
    z = 0.1 + 1.2 * torch.randn(300, dtype=torch.float64)
    found = normality(z)
    assert found["code_ks"] == pytest.approx(scipy.kstest(z.numpy(), "norm").statistic, abs=1e-12)
    floors = [normality(torch.randn(400, dtype=torch.float64))["code_ks"] for _ in range(400)]
    assert found["code_ks_floor"] * math.sqrt(300 / 400) == pytest.approx(np.mean(floors), rel=0.06)


@pytest.mark.parametrize("name", SDES)
def test_the_round_trip_loses_less_than_a_thousandth_of_the_datas_std(name, tmp_path):
    """x -> z -> x at tolerance 1e-5, in the precision of the command line: the root mean square, and 99 % of all
    coordinates. (A point on the ridge between two modes, where the flow parts, may lose three times as much.)
    """
    sde, components = make_sde(name), mixture((2,))
    x = draw_mixture(components, 200, (2,))
    record = Record(tmp_path)
    metrics = Encode(rtol=1e-5, atol=1e-5)(job_of(sde, Oracle(sde, components), planar(x), record))
    record.close()
    arrays, std = np.load(tmp_path / "codes.npz"), float((x - x.mean(0)).square().mean().sqrt())
    error = np.abs(arrays["x_back"] - arrays["x"]) / SCALE.numpy() / std
    # the std of coordinates in model units, pooled: that of these data is x's
    assert metrics["round_trip_worst_stds"] == pytest.approx(error.max())
    assert metrics["round_trip_rms_stds"] == pytest.approx(np.sqrt((error**2).mean()))
    assert metrics["round_trip_rms_stds"] < 3e-4 and np.quantile(error, 0.99) < 1e-3 and error.max() < 1e-2


# --- two networks, one code -------------------------------------------------------------------------------------------


@pytest.mark.painted
def test_one_score_gives_one_code(tmp_path):
    sde, x = make_sde("ve"), draw_mixture(mixture((2,)), 40, (2,))
    twin = Oracle(sde, tuple(part.flip(0) for part in mixture((2,))))  # the same density, its components reordered
    metrics, arrays = encode(tmp_path, sde, Oracle(sde, mixture((2,))), planar(x), second=(sde, twin), other="twin")
    np.testing.assert_allclose(arrays["z_other"], arrays["z"], rtol=1e-9)
    assert metrics["other_distance_share"] < 1e-9 and metrics["other_correlation_worst"] == pytest.approx(1)
    assert (tmp_path / "identity.png").stat().st_size > 3000


def test_a_second_network_is_given_no_y(tmp_path):
    """It is refused before anything is read or trained: the second network would be called without its y."""
    words = ["data.condition=labels", "condition=3", "model.channels=[8,8]", "training.steps=1"]
    with pytest.raises(ValueError, match=r"Encode compares networks of p\(x\) and takes none of p\(x \| y\)"):
        job(tmp_path, "data=digits", "model=unet_small", "task.other=nowhere", *words)


@pytest.mark.parametrize("name", ["vp", "subvp", "toy", "ve"])
def test_codes_under_two_sdes_agree_up_to_what_is_left_at_T(name, tmp_path):
    """In units of their priors' stds; against VE to sigma 5000, at which nothing is left."""
    sde, components = make_sde(name), mixture((2,))
    far, x = VE(sigma_max=5000.0), draw_mixture(components, 100, (2,))
    score, second = Oracle(sde, components), Oracle(far, components)
    metrics, _ = encode(tmp_path, sde, score, planar(x), second=(far, second), other="far", rtol=1e-6, atol=1e-6)
    T = torch.tensor(sde.T, dtype=torch.float64)
    left = float(sde.alpha(T) / sde.sigma(T))
    assert metrics["other_distance"] < 2 * left + 1e-3
    assert metrics["other_correlation_worst"] > 1 - 5 * left


def test_the_distance_of_codes_is_the_formula():
    """z_b = rho z_a + sqrt(1 - rho^2) n: the correlation is rho, the distance sqrt(2 - 2 rho), over sqrt(2)."""
    rho, a = 0.8, torch.randn(20_000, 2, 2, dtype=torch.float64)
    b = rho * a + math.sqrt(1 - rho**2) * torch.randn_like(a)
    found = identity(a, b)
    assert found["other_correlation"] == pytest.approx(rho, abs=0.01)
    assert found["other_correlation_worst"] <= found["other_correlation"]
    assert found["other_distance"] == pytest.approx(math.sqrt(2 - 2 * rho), rel=0.02)
    assert found["other_distance_share"] == pytest.approx(math.sqrt(1 - rho), rel=0.02)
    assert identity(a[:1], b[:1]).keys() == {"other_distance"}, "one point has no correlation"


def test_networks_of_one_data_set_are_compared(tmp_path):
    tiny = ["training.steps=40", "training.batch=64", "training.warmup=2", "training.evaluate=0", "sde=vp", "count=30"]
    job(tmp_path, "data=moons", *tiny)
    (first,) = (tmp_path / "store").iterdir()
    metrics = job(tmp_path, "data=moons", "training.seed=1", "model.width=64", f"task.other={first}", *tiny)
    assert 0 < metrics["other_distance_share"] < 0.5 and metrics["other_correlation"] > 0.8
    assert metrics["round_trip_worst_stds"] < 1e-3, "of a network"
    assert np.load(tmp_path / "run" / "codes.npz")["z_other"].shape == (30, 2)
    metrics = job(tmp_path, "data=moons", f"task.other={first}", *tiny)
    assert metrics["other_distance"] == 0, "the network itself"
    for words, message in (
        (["data=moons", "data.noise=0.2"], "(?s)is a network of other data.*data.noise: 0.1 in the other network, 0.2"),
        (["data=moons", "training.steps=41"], "task.other=nowhere does not exist"),
    ):
        other = "nowhere" if "nowhere" in message else first
        with pytest.raises((ValueError, OSError), match=message):
            job(tmp_path, *words, *tiny[1:], f"task.other={other}")
    assert len(list((tmp_path / "store").iterdir())) == 2, "a mistake is told before a training"


@pytest.mark.painted
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 4, 4), (3, 7, 5)])
def test_both_codes_have_a_picture(shape, tmp_path):
    sde, x = make_sde("vp"), torch.randn(15, *shape, dtype=torch.float64)
    second = sde, GaussianScore(sde, 0.0, 0.8)
    encode(
        tmp_path,
        sde,
        GaussianScore(sde),
        Data(x, x, 0.0, 1.0, shuffle=False),
        second=second,
        other="b",
        rtol=1e-2,
        atol=1e-2,
    )
    assert (tmp_path / "identity.png").stat().st_size > 3000


# --- any shape, any batch ---------------------------------------------------------------------------------------------


def test_images_of_levels_come_back(tmp_path):
    """Integers become points of their bins, those of task=likelihood; z has the pictures' shape."""
    sde, shape = make_sde("vp"), (3, 8, 6)
    r = torch.randint(0, 16, (5, *shape))
    data = Data(r, r, 8.0, 4.0, levels=16, shuffle=False)
    metrics, arrays = encode(tmp_path, sde, GaussianScore(sde), data)
    assert arrays["z"].shape == arrays["x_back"].shape == (5, *shape)
    assert np.array_equal(np.floor(arrays["x"]), r) and not np.array_equal(arrays["x"], r)
    assert metrics["round_trip_worst_data_units"] == pytest.approx(4 * metrics["round_trip_worst_model_units"])
    assert metrics["round_trip_worst_data_units"] < 1e-2 and (tmp_path / "codes.png").exists()


@pytest.mark.painted
@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (1, 4, 4), (2, 3, 7)])
def test_every_shape_has_a_picture(shape, tmp_path):
    sde, x = make_sde("vp"), torch.randn(20, *shape, dtype=torch.float64)
    encode(tmp_path, sde, GaussianScore(sde), Data(x, x, 0.0, 1.0, shuffle=False), rtol=1e-3, atol=1e-3)
    assert (tmp_path / "codes.png").stat().st_size > 3000


def test_codes_do_not_depend_on_the_batch(tmp_path):
    sde, x = make_sde("vp"), draw_mixture(mixture((2,)), 20, (2,))
    codes = [encode(tmp_path, sde, Oracle(sde, mixture((2,))), planar(x), batch=b)[1]["z"] for b in (20, 7, 1)]
    assert max(np.abs(codes[0] - other).max() for other in codes[1:]) < 1e-9


# --- the command line -------------------------------------------------------------------------------------------------


def test_held_out_data_of_the_command_line(tmp_path):
    tiny = ["training.steps=20", "training.batch=32", "training.warmup=2", "training.evaluate=0"]
    metrics = job(tmp_path, "data=moons", "sde=vp", "count=30", *tiny)
    arrays = np.load(tmp_path / "run" / "codes.npz")
    assert set(arrays) == {"x", "z", "x_back"} and arrays["z"].shape == (30, 2)
    assert metrics["round_trip_rms_data_units"] < 1e-2 and metrics["count"] == 30 and metrics["nfe"] > 20


def test_points_are_the_users_own(tmp_path):
    points = np.array([[0.5, 0.1], [1.0, -2.0], [0.0, 0.0]])
    np.save(tmp_path / "new.npy", points)
    words = ["data=mixture", "model=oracle", "sde=vp", "dtype=float64", f"points={tmp_path}/new.npy"]
    job(tmp_path, *words)
    loose = np.load(tmp_path / "run" / "codes.npz")
    assert np.allclose(loose["x"], points) and np.allclose(loose["x_back"], points, atol=1e-2)
    metrics = job(tmp_path, *words, "task.rtol=1e-8", "task.atol=1e-8")
    assert metrics["round_trip_worst_data_units"] < 1e-5 and metrics["count"] == 3


@pytest.mark.parametrize(
    "override, message",
    [
        ("task.method=rk4", "task.method=rk4 is no ODE solver here"),
        ("task.clock=sand", "task.clock=sand must be one of angle, t"),
        ("task.rtol=0", "task.rtol=0.0 must lie between 0 and 1"),
        ("task.steps=0", "task.steps=0 must be at least 1"),
        ("task.batch=0", "task.batch=0 must be at least 1"),
        ("points=nowhere.npy", "points=nowhere.npy"),
    ],
)
def test_mistakes_name_the_key(override, message, tmp_path):
    with pytest.raises((ValueError, OSError)) as caught:
        job(tmp_path, "data=mixture", "model=oracle", override)
    assert message in str(caught.value)


def test_a_mistyped_key_is_one_message(tmp_path):
    message = refused("task=encode", "data=mixture", "model=oracle", "task.rtoll=1e-3", folder=tmp_path)
    assert "rtoll" in message and "Error" not in message.splitlines()[-1]
