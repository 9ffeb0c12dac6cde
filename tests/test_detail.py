"""Data finer than the noise at eps: a warning before anything is trained, which names the key that would do."""

import logging
import re

import numpy as np
import pytest
import torch

from scoresde.conf import assemble, compatibility, schema
from scoresde.samplers import width

from .conftest import SDES, compose


@pytest.fixture
def ridge(tmp_path):
    """300 rows of three columns, the last two apart by 1e-3 of their std."""
    draws = torch.randn(300, 3, dtype=torch.float64)
    draws[:, 2] = draws[:, 1] + 2e-3 * draws[:, 2]
    path = tmp_path / "ridge.csv"
    rows = "\n".join(",".join(map(repr, row)) for row in draws.tolist())
    path.write_text(f"mass,age,height\n{rows}\n")
    return [f"data.path={path}", "data=arrays"]


def warnings_of(caplog, *words: str, check=compatibility.detail) -> list[str]:
    """The warnings of a run that is not trained."""
    cfg = compose(*words)
    data = assemble.build_data(cfg)
    cfg = assemble.settle(cfg, data, "cpu")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check(schema.build(cfg["task"], "task"), schema.build(cfg["sde"], "sde"), data)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", SDES)
def test_the_warning_names_a_key_that_does(name, ridge, caplog):
    found = warnings_of(caplog, *ridge, f"sde={name}")
    if name == "subvp":  # whose noise at eps is 1.1e-4 already
        assert not found
        return
    (message,) = found
    assert "in 1 of 3 directions" in message and "0.71 age" in message and "0.71 height" in message
    (typed,) = re.findall(r"type (sde\.\S+),", message)
    assert typed.startswith("sde.sigma_min=" if name == "ve" else "sde.eps=")
    assert warnings_of(caplog, *ridge, f"sde={name}", typed) == []


def test_the_numbers_of_the_warning(ridge, caplog):
    (message,) = warnings_of(caplog, *ridge, "sde=edm")
    noise, least = 0.002, float(re.findall(r"down to (\S+) \(", message)[0])
    assert least == pytest.approx(2e-3 / 2**0.5, rel=0.1) and "sde.eps=0.002 has the std 0.002" in message
    stretched = float(re.findall(r"samples is (\S+) times", message)[0])
    assert stretched == pytest.approx(width("flow", (noise / least) ** 2), rel=0.04)


@pytest.mark.parametrize(
    "words, warns",
    [
        (["task=sample", "sampler.last=tweedie"], True),  # narrower by as much
        (["task=sample", "sampler.last=none"], False),  # who asks for x at eps gets it
        (["task=train"], True),  # for those who will draw from the network
        (["task=impute"], True),
        (["task=likelihood"], False),
    ],
)
def test_who_is_warned(words, warns, ridge, caplog):
    assert len(warnings_of(caplog, *ridge, *words)) == warns


STARTS = {  # an SDE that ends with too little noise, and whether a key of its own helps
    "ve": ("sde.sigma_max=0.9", True),
    "edm": ("sde.T=0.8", True),
    "vp": ("sde.beta_max=1", True),
    "custom": ("sde.diffusion=0.1", False),
}


@pytest.mark.parametrize("name", STARTS)
def test_noise_at_T_that_the_data_reach_beyond_is_warned_of(name, caplog):
    """Samples start from N(0, sigma(T)^2 I), which is then no p_T; under what the warning says to type they do."""
    word, helps = STARTS[name]
    (message,) = warnings_of(caplog, "data=moons", f"sde={name}", word, check=compatibility.start)
    typed = re.findall(r"type (sde\.\S+),", message)
    assert bool(typed) == helps
    for key in typed:
        assert warnings_of(caplog, "data=moons", f"sde={name}", word, key, check=compatibility.start) == []
    assert warnings_of(caplog, "data=moons", f"sde={name}", word, "task=likelihood", check=compatibility.start) == []


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("data", ["moons", "digits"])
def test_default_noise_at_T_is_not_complained_of(name, data, caplog):
    assert warnings_of(caplog, f"data={data}", f"sde={name}", check=compatibility.start) == []


def test_a_far_mean_is_warned_of_in_plain_numbers(tmp_path, caplog):
    np.save(
        tmp_path / "far.npy",
        np.full((40, 3, 64, 64), 250, np.uint8) + np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1) % 5,
    )
    (message,) = warnings_of(
        caplog, "data=arrays", f"data.path={tmp_path}/far.npy", "sde=ve", check=compatibility.start
    )
    assert re.search(r"a mean 10\d from 0.*type sde\.sigma_max=5\d0,", message) and len(message) < 300, message


def test_noise_at_T_is_compared_without_a_covariance_of_pictures(caplog, monkeypatch):
    """The covariance of 20,000 pictures of 64 x 64 pixels takes gigabytes, which pictures that end in a mean spare."""
    monkeypatch.setattr("scoresde.data.base.Data.moments", None)
    assert (
        warnings_of(caplog, "data=digits") == [] and warnings_of(caplog, "data=digits", check=compatibility.start) == []
    )


def test_broad_data_and_pictures_are_left_alone(caplog):
    assert warnings_of(caplog, "data=moons") == []
    assert warnings_of(caplog, "data=digits") == []


def test_a_column_that_others_determine(tmp_path, caplog):
    """No eps is low enough: the message says so, and names no key of the SDE."""
    draws = torch.randn(300, 2, dtype=torch.float64)
    rows = "\n".join(f"{a!r},{b!r},{a + b!r}" for a, b in draws.tolist())
    (tmp_path / "sum.csv").write_text(f"a,b,sum\n{rows}\n")
    (message,) = warnings_of(caplog, "data=arrays", f"data.path={tmp_path}/sum.csv")
    assert "no sde.eps helps" in message and "leave out a column" in message and "type sde" not in message


@pytest.mark.parametrize("data, last", [("moons", "flow"), ("digits", "tweedie")])
def test_the_shape_decides_the_last_step(data, last):
    cfg = compose(f"data={data}", "sampler=unipc")
    assert assemble.settle(cfg, assemble.build_data(cfg), "cpu")["task"]["sampler"]["last"] == last


def test_what_is_published_stays():
    for name, last in (("em_published", "tweedie"), ("pc_published", "tweedie"), ("ald_ncsn", "none")):
        assert compose(f"sampler={name}")["sampler"]["last"] == last
    for experiment in ("published_vp", "score_sde/vp_continuous", "score_sde/subvp_continuous"):
        sampler = compose(f"experiment={experiment}")["sampler"]
        assert sampler["last"] == "tweedie" and sampler["grid"]["_target_"] == "samplers.Uniform"


def test_run_says_it_before_training(ridge, tmp_path, caplog):
    from scoresde.cli import run

    words = [
        *ridge,
        "sde=vp",
        "sde.beta_max=1",
        "sampler=unipc",
        "sampler.steps=2",
        "count=5",
        f"store={tmp_path}/store",
    ]
    small = ["training.vectors.steps=2", "training.vectors.batch=16"]
    choices = {"task": "sample", "data": "arrays", "sde": "vp", "sampler": "unipc", "model": "auto"}
    with caplog.at_level(logging.INFO):
        run(compose(*words, *small), choices, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    warned = next(i for i, line in enumerate(said) if "has the std" in line)
    narrow = next(i for i, line in enumerate(said) if "samples start from" in line)
    trained = next(i for i, line in enumerate(said) if "training" in line)
    assert max(warned, narrow) < trained
