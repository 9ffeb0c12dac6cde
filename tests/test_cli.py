"""The command line as a user meets it: what it leaves, what it refuses, and how sweeps end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf

from scoresde import load, run
from scoresde.cli import out_of_memory
from scoresde.conf import schema
from scoresde.tasks import Record
from scoresde.tasks.parts.summary import begin, summarise
from tests.conftest import ROOT, choices, compose, composed, standard

TINY = ("training.steps=30", "training.batch=32", "training.warmup=2", "training.evaluate=2")
CHOICES = {"task": "sample", "data": "moons", "sde": "ve", "sampler": "ode", "model": "mlp"}


def command(*overrides: str, folder: Path, timeout: float = 300, **keys) -> subprocess.CompletedProcess:
    """python run.py, in a process of its own, all that it writes under ``folder``."""
    places = [f"store={folder}/store", f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep", "threads=1"]
    multirun = ["-m"] if "-m" in overrides else []
    words = [word for word in overrides if word != "-m"]
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *multirun, *places, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        **keys,
    )


def job(folder: Path, *overrides: str) -> dict:
    """The same job in this process, without Hydra's logging: its metrics."""
    run(compose(f"store={folder}/store", *overrides), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


# What a run leaves behind


def test_a_run_keeps_the_contract(tmp_path):
    done = command("data=moons", "sampler=em", "sampler.steps=5", "count=40", *TINY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    assert {".hydra", "run.log", "metrics.jsonl", "metrics.json", "samples.npz", "samples.png"} <= {
        p.name for p in folder.iterdir()
    }
    samples, metrics = np.load(folder / "samples.npz")["x"], json.loads((folder / "metrics.json").read_text())
    assert samples.shape == (40, 2) and metrics["nfe"] == 6 and metrics["count"] == 40 and metrics["seconds"] > 0
    last = done.stdout.strip().splitlines()[-3:]
    assert all(Path(tmp_path, line).is_file() and line.endswith(".png") for line in last)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in event for event in events)


def test_the_second_run_finds_the_network_and_other_samplers_share_it(tmp_path):
    first = job(tmp_path, "data=moons", "sampler=em", "sampler.steps=3", "count=10", *TINY)
    stores = list((tmp_path / "store").iterdir())
    stamp = max(path.stat().st_mtime_ns for path in stores[0].rglob("*.safetensors"))
    job(tmp_path, "data=moons", "sampler=ode", "seed=5", "count=10", *TINY)
    second = job(tmp_path, "data=moons", "sampler=em", "sampler.steps=3", "count=10", *TINY)
    assert list((tmp_path / "store").iterdir()) == stores
    assert max(path.stat().st_mtime_ns for path in stores[0].rglob("*.safetensors")) == stamp
    assert first["sliced_wasserstein"] == second["sliced_wasserstein"], "same seed, same samples"


def test_what_decides_the_weights_and_nothing_else_decides_the_network(tmp_path):
    job(tmp_path, "task=train", "data=moons", *TINY)
    beside = ["training.compile=false", "training.channels_last=false", "training.precision=auto"]
    beside += ["training.evaluate=0", "training.save_seconds=5", "sde.sigma_max=50", "sde.T=1", "data.test_count=200"]
    for override in ("seed=1", "sampler.steps=3", *beside):
        job(tmp_path, "task=train", "data=moons", *TINY, override)
        assert len(list((tmp_path / "store").iterdir())) == 1, override
    decisive = [
        "training.accumulate=2",
        "training.precision=float32",
        "training.seed=1",
        "sde.sigma_max=40",
        "model.width=64",
        "training.steps=31",
        "data.noise=0.2",
    ]
    for count, override in enumerate(decisive, start=2):
        job(tmp_path, "task=train", "data=moons", *TINY, override)
        assert len(list((tmp_path / "store").iterdir())) == count, override


KNOWN = (
    "binary",
    "modes",
    "manifold",
    "low_density",
    "elbo",
    "generators",
    "export",
)  # for data or models of their own, tested there


@pytest.mark.painted
@pytest.mark.parametrize("task", [task for task in choices("task") if task not in KNOWN])
@pytest.mark.parametrize("data", ["moons", "digits"])
def test_every_task_on_vectors_and_on_images(tmp_path, task, data):
    small = ["model.channels=[8,8]", "model.attention=[]"] if data == "digits" else []
    if task == "bound":
        small += ["task.steps=3"]
    if task == "work_precision":
        small += ["task.only=[vp,em,ode,exact]", "task.budgets=[5]", "task.tolerances=[1e-1]", "task.points=8"]
    if task == "train_classifier" and data == "digits":
        small = ["classifier.images.channels=[8,8]"]
    if task == "evaluate" and data == "digits":
        small += ["task.features.images.training.steps=20"]
    if task == "overfitting":
        small += ["task.shares=[0.5,1]", "likelihood.rtol=1e-2", "likelihood.atol=1e-2"]
    if task == "ema":
        small += ["task.snapshots=3", "task.widths=[0.1,0.2]", "likelihood.rtol=1e-2", "likelihood.atol=1e-2"]
    if task == "restore" and data == "moons":
        small += ["operator=columns", "operator.noise=0.2"]
    guided = task in ("impute", "restore") and data == "digits"  # four steps of em from sigma = 50 diverge, and say so
    sampler = "ancestral" if guided else "em"
    metrics = job(
        tmp_path, f"task={task}", f"data={data}", f"sampler={sampler}", "sampler.steps=4", "count=8", *small, *TINY
    )
    pictures = sorted(path.name for path in (tmp_path / "run").glob("*.png"))
    expected = {
        ("sample", "moons"): ["samples.png", "score_field.png", "trajectories.png"],
        ("sample", "digits"): ["film.png", "samples.png"],
        ("likelihood", "moons"): ["density.png"],
        ("likelihood", "digits"): ["likelihood.png"],
        ("encode", "moons"): ["codes.png"],
        ("encode", "digits"): ["codes.png"],
        ("interpolate", "moons"): ["interpolation.png"],
        ("interpolate", "digits"): ["interpolation.png"],
        ("memorisation", "moons"): ["distances.png", "pairs.png"],
        ("memorisation", "digits"): ["distances.png", "pairs.png"],
        ("evaluate", "moons"): ["evaluation.png"],
        ("evaluate", "digits"): ["evaluation.png"],
        ("overfitting", "moons"): ["overfitting.png"],
        ("overfitting", "digits"): ["overfitting.png"],
        ("ema", "moons"): ["ema.png"],
        ("ema", "digits"): ["ema.png"],
        ("impute", "moons"): ["restored.png"],
        ("impute", "digits"): ["restored.png"],
        ("restore", "moons"): ["restored.png"],
        ("restore", "digits"): ["restored.png"],
        ("train", "moons"): ["loss.png"],
        ("train", "digits"): ["loss.png"],
        ("train_classifier", "moons"): ["classifier.png", "loss.png"],
        ("train_classifier", "digits"): ["classifier.png", "loss.png"],
        ("work_precision", "moons"): ["likelihood_precision.png", "work_precision.png"],
        ("work_precision", "digits"): ["work_precision.png"],
        ("bound", "moons"): ["bound.png"],
        ("bound", "digits"): ["bound.png"],
    }
    assert pictures == expected[task, data]
    if task == "likelihood":
        arrays = np.load(tmp_path / "run" / "likelihood.npz")
        assert -arrays["log_prob"].mean() == pytest.approx(metrics["nll_nats"])
        if data == "digits":
            dim = 64
            assert metrics["bits_per_dim"] == pytest.approx(metrics["nll_nats"] / (dim * np.log(2)))
            assert np.array_equal(np.floor(arrays["x"]), np.floor(arrays["x"]).clip(0, 16)), (
                "x is dequantised, in the data's units"
            )
        else:
            assert metrics["gap_nats"] == pytest.approx(metrics["nll_nats"] - metrics["floor_nats"])


def test_samples_of_integer_data_are_integers_in_their_range(tmp_path):
    job(
        tmp_path,
        "data=digits",
        "sampler=em",
        "sampler.steps=3",
        "count=5",
        "model.channels=[8]",
        "model.attention=[]",
        *TINY,
    )
    x = np.load(tmp_path / "run" / "samples.npz")["x"]
    assert x.dtype == np.uint8 and x.shape == (5, 1, 8, 8) and x.max() <= 16


def test_samples_do_not_depend_on_the_batch(tmp_path):
    drawn = []
    for batch in (7, 100):
        job(
            tmp_path,
            "data=mixture",
            "model=oracle",
            "sampler=pc",
            "sampler.steps=20",
            "count=100",
            f"task.batch={batch}",
            "dtype=float64",
        )
        drawn.append(np.load(tmp_path / "run" / "samples.npz")["x"])
    assert max(np.abs(drawn[0] - other).max() for other in drawn[1:]) < 1e-10


# The exact score


@pytest.mark.parametrize("sde", ["ve", "vp", "subvp", "toy", "custom"])
def test_the_oracles_likelihood_is_the_closed_form(tmp_path, sde):
    metrics = job(tmp_path, "task=likelihood", "data=mixture", "model=oracle", f"sde={sde}", "count=1000")
    assert metrics["ode_error_mean_nats"] < 1e-4 and metrics["ode_error_max_nats"] < 1e-3
    assert "prior_cost_nats" in metrics and metrics["gap_nats"] < 0.01


def test_a_mixture_of_images_goes_the_whole_way(tmp_path):
    shape = [
        "data=mixture",
        "data.shape=[3,4,2]",
        "data.weights=[0.4,0.6]",
        "data.means=[-1,1]",
        "data.stds=[0.5,0.4]",
        "model=oracle",
    ]
    metrics = job(tmp_path, "task=likelihood", *shape, "count=5")
    assert metrics["ode_error_max_nats"] < 5e-3
    job(tmp_path, *shape, "sampler=ode", "count=4")
    assert np.load(tmp_path / "run" / "samples.npz")["x"].shape == (4, 3, 4, 2)


def test_the_solvers_error_is_not_the_probes(tmp_path):
    """Both solves that it compares meet the same probes, or it would be as large as their standard error."""
    metrics = job(tmp_path, "task=likelihood", "data=mixture", "model=oracle", "likelihood=hutchinson", "count=40")
    stderr = np.load(tmp_path / "run" / "likelihood.npz")["probe_stderr"]
    assert 0 < metrics["ode_error_nats"] < 0.1 * float(np.sqrt(np.mean(stderr**2)))


def test_points_are_the_users_own(tmp_path):
    points = np.array([[0.5, 0.1], [1.0, -2.0], [0.0, 0.0]])
    np.save(tmp_path / "new.npy", points)
    job(tmp_path, "task=likelihood", "data=mixture", "model=oracle", f"points={tmp_path}/new.npy")
    arrays = np.load(tmp_path / "run" / "likelihood.npz")
    truth = schema.build(compose("data=mixture")["data"], "data").true_log_prob(torch.from_numpy(points))
    assert np.allclose(arrays["x"], points) and np.allclose(arrays["log_prob"], truth, atol=0.02)


# Networks by path


def test_a_network_is_read_by_path_and_under_another_sde(tmp_path):
    job(tmp_path, "data=moons", "sampler=em", "sampler.steps=3", "count=10", *TINY)
    (folder,) = (tmp_path / "store").iterdir()
    metrics = job(tmp_path, "data=moons", "sde=vp", "sampler=ode", "count=10", f"checkpoint={folder}")
    assert metrics["count"] == 10 and len(list((tmp_path / "store").iterdir())) == 1
    sde, score, data = load(folder)
    assert type(sde).__name__ == "VE" and data.shape == (2,)
    x = torch.randn(4, 2)
    assert score(x, torch.full((4,), 0.5)).shape == (4, 2)
    with pytest.raises(ValueError, match="(?s)does not fit this run.*model.width: 128 in the checkpoint, 64 here"):
        job(tmp_path, "data=moons", "model.width=64", f"checkpoint={folder}")
    with pytest.raises(
        ValueError, match="(?s)does not fit this run.*data: data.Moons in the checkpoint, data.Rings here"
    ):
        job(tmp_path, "data=rings", f"checkpoint={folder}")
    next(folder.glob("step-*/ema.safetensors")).write_bytes(b"short")
    with pytest.raises(ValueError, match="is damaged"):
        job(tmp_path, "data=moons", f"checkpoint={folder}")


# The user's own data


@pytest.mark.parametrize("shape", [(60, 2), (60, 5), (60, 1), (60, 7, 9), (60, 3, 8, 6)])
def test_arrays_pick_a_network_that_fits(tmp_path, shape):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    small = ["model.images.channels=[8]", "training.images.steps=5", "training.images.batch=8"]
    tiny = ["training.vectors.steps=5", "training.vectors.batch=8", *small]
    data = ["data=arrays", f"data.path={tmp_path}/mine.npy", "sampler=em", "sampler.steps=2", "count=4"]
    job(tmp_path, *data, *tiny)
    assert np.load(tmp_path / "run" / "samples.npz")["x"].shape[1:] == (
        shape[1:] if len(shape) != 3 else (1, *shape[1:])
    )
    (folder,) = (tmp_path / "store").iterdir()
    units = load(folder)[2]
    assert len(units.train) > 0, "the file is where it was"
    moved = tmp_path / "elsewhere.npy"
    (tmp_path / "mine.npy").rename(moved)
    job(tmp_path, *[word.replace("mine", "elsewhere") for word in data], *tiny)
    assert len(list((tmp_path / "store").iterdir())) == 1, "a file counts by its content and not by its path"
    assert len(load(folder)[2].train) > 0, "and is found where it was seen last"
    moved.unlink()
    without = load(folder)[2]
    r = torch.rand(3, *units.shape)
    assert len(without.train) == 0 and torch.equal(without.encode(r), units.encode(r)), "its units are there without it"


def test_a_folder_of_colour_pictures_that_are_not_square(tmp_path):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    words = ["data=images", f"data.path={tmp_path}/pictures", "model.images.channels=[8,8]", "count=4"]
    words += ["training.images.steps=3", "training.images.batch=4", "training.images.warmup=1"]
    job(tmp_path, *words, "sampler=em", "sampler.steps=2")
    x = np.load(tmp_path / "run" / "samples.npz")["x"]
    assert x.shape == (4, 3, 20, 36) and x.dtype == np.uint8
    assert (
        job(tmp_path, *words, "task=likelihood", "likelihood.images.rtol=1e-2", "likelihood.images.atol=1e-2")[
            "bits_per_dim"
        ]
        > 6
    )


def test_an_energy_is_trained_sampled_and_scored(tmp_path):
    words = ["data=moons", "model=energy_mlp", "model.net.width=16", "count=10", *TINY]
    job(tmp_path, *words, "sampler=em", "sampler.steps=3")
    metrics = job(tmp_path, *words, "task=likelihood", "likelihood.rtol=1e-3", "likelihood.atol=1e-3")
    assert metrics["gap_nats"] > 0


def test_an_energy_of_pictures_is_scored_with_several_probes(tmp_path):
    """torch cannot batch GroupNorm's second derivative: the probes then go one by one."""
    words = ["data=digits", "model=energy_unet", "model.net.channels=[8]", "model.net.attention=[]", "count=3", *TINY]
    loose = ["likelihood.rtol=1e-2", "likelihood.atol=1e-2", "likelihood.probes.count=3"]
    assert job(tmp_path, *words, "task=likelihood", *loose)["probe_stderr_nats"] > 0


def test_a_failed_run_leaves_no_numbers_of_an_earlier_one(tmp_path):
    words = ["data=mixture", "model=oracle", "sampler=em", "count=5"]
    job(tmp_path, *words, "sampler.steps=2")
    with pytest.raises(ValueError, match="sampler.steps=0"):
        job(tmp_path, *words, "sampler.steps=0")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_threads_are_no_part_of_what_is_trained(tmp_path):
    """With dropout too: nothing but the training draws from its generator."""
    weights = []
    for threads in ("null", "1"):
        folder = tmp_path / threads
        job(folder, "task=train", "data=moons", "model.dropout=0.3", f"threads={threads}", *TINY)
        weights.append(next(folder.glob("store/*/step-*/ema.safetensors")).read_bytes())
    assert weights[0] == weights[1]


# Mistakes


def refused(*overrides: str, folder: Path) -> str:
    done = command(*overrides, folder=folder)
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    return done.stderr


def test_a_group_that_is_null_is_named(tmp_path):
    message = refused("sampler/corrector=null", folder=tmp_path)
    assert message == "error: sampler/corrector=null: sampler/corrector cannot be null; type ~sampler/corrector to " \
        "leave it out\n"  # fmt: skip


@pytest.mark.parametrize("experiment", choices("experiment"))
@pytest.mark.parametrize("sampler, data", [("em", "moons"), ("ode", "arrays"), ("pc", "moons")])
def test_presets_go_with_everything(experiment, sampler, data):
    cfg = compose(f"experiment={experiment}", f"sampler={sampler}", f"data={data}")
    cfg = schema.settle(cfg, (2,), standard((2,)))
    for key in ("sampler", "training", "sde", "parameterisation"):
        schema.build(cfg[key], key)
    levels = {"oracle": "LogSNR", "published_ve": "Uniform", "published_vp": "Uniform", "ddpm": "Chain"}
    if experiment in levels:
        assert cfg["training"]["loss"]["levels"]["_target_"] == f"training.levels.{levels[experiment]}"


def test_every_sampler_comes_through_the_whole_configuration(tmp_path):
    for sampler in choices("sampler"):
        has = compose(f"sampler={sampler}")["sampler"]
        steps = [f"sampler.{key}={value}" for key, value in (("steps", 4), ("levels", 3), ("count", 1)) if key in has]
        small = ["model.channels=[8]", "model.attention=[]", "training.steps=2", "count=2"]
        metrics = job(tmp_path, "data=digits", *TINY, *small, f"sampler={sampler}", *steps)
        assert metrics["nfe"] > 0


def test_a_wrong_group_names_the_choices(tmp_path):
    assert "subvp" in refused("sde=vee", folder=tmp_path)


def test_an_unknown_key_is_named(tmp_path):
    assert "sigma_maxx" in refused("sde.sigma_maxx=3", folder=tmp_path)


def test_a_mistake_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    message = refused("sde.sigma_max=0.001", folder=tmp_path)
    assert message.strip().splitlines()[-1].startswith("error: sde.sigma_max=0.001 must exceed sde.sigma_min=0.01")
    assert "Traceback" in (tmp_path / "run" / "run.log").read_text()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(f"hydra.run.dir={tmp_path}/file/run", folder=tmp_path)
    assert message.strip().startswith("error: hydra.run.dir=") and len(message.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["sampler.steps=0"], "sampler.steps=0 must be at least 1"),
        (["sampler.steps=ten"], "sampler.steps=ten must be a whole number"),
        (["sampler.steps=2.5"], "sampler.steps=2.5 must be a whole number"),
        (["sde.eps=2"], "sde.eps=2.0 must lie between 0 and sde.T"),
        (["+sde.mu=2"], "sde.mu is not a key of VE; its keys are sigma_min, sigma_max, T, eps; leave it out, with ~sd"),
        (["training/loss=sliced", "training.loss.law=cauchy"], "training.loss.law=cauchy must be one of rademacher"),
        (["training/loss/levels=clean"], "training/loss/levels=clean has no noise to take off: type training/loss="),
        (["training/loss=explicit"], "training/loss=explicit needs data whose density is a mixture"),
        (["training/loss=ncsn", "training.loss.levels.count=1"], "training.loss.levels.count=1 must lie in [2,"),
        (
            ["training/loss=one_level", "training.loss.levels.noise_to_signal=1e9"],
            "lies outside the SDE's levels, 0.01",
        ),
        (["sampler/grid=karras", "sampler.grid.rho=-1"], "sampler.grid.rho=-1.0 must be positive"),
        (["sampler=em", "++sampler.corrector={snr:0.1}"], "sampler.corrector.snr: there is no sampler/corrector here"),
        (["sde=ve", "sde.sigma_max=1e30"], "sde.sigma_max=1e+30 must exceed sde.sigma_min=0.01, both positive and at"),
        (["sde=toy", "sde.s=1e30"], "sde.s=1e+30 must exceed 1 and be at most"),
        (["sde=custom", "sde.diffusion=1e30"], "sigma(T) = 1e+30 must be below"),
        (["sde=vp", "sde.beta_max=1e9"], "sde.beta_max=1000000000.0 leaves nothing of the data at sde.eps=0.001; pub"),
        (["sampler.corrector.snr=0"], "sampler.corrector.snr=0.0 must lie between 0 and 1"),
        (["sde=custom", "sde.diffusion='import os'"], "sde.diffusion='import os': not an expression"),
        (["checkpoint=nowhere"], "checkpoint=nowhere does not exist"),
        (["+devcie=cpu"], "devcie is not a key of the configuration"),
        (["points=x.npy"], "points=x.npy: this task reads none; type task=likelihood"),
        (["checkpoint="], "checkpoint= is empty"),
        (["training.rate=inf"], "training.rate=inf must be a finite number"),
        (["data=arrays", "data.path=x.npy", "+training.steps=3"], "training.steps: the data's shape decides"),
        (["data.test_count=auto"], "data.test_count=auto must be a whole number"),
        (["count=0"], "count=0 must be at least 1"),
        (["count=1000000000000"], "count=1000000000000 must be at most 100000000"),
        (["threads=1000000000000"], "threads=1000000000000 must be at most 1024"),
        (["seed=99999999999999999999"], "seed=99999999999999999999 must be at most 9223372036854775807"),
        (["training.seed=99999999999999999999"], "training.seed=99999999999999999999 must be at most"),
        (["training.batch=10000000000000"], "training.batch=10000000000000 must be at most 1000000"),
        (["training.steps=10000000000000"], "training.steps=10000000000000 must be at most 1000000000"),
        (["count=many"], "count=many must be a whole number or null"),
        (["seed=x"], "seed=x must be a whole number"),
        (["dtype=float16"], "dtype=float16 must be one of float32, float64"),
        (["device=tpu"], "device=tpu must be one of auto, cpu, cuda, mps"),
        (["model=mlp"], "model=mlp takes vectors"),
        (["sde=binary"], "task=Sample is for SDEs, and sde=BinaryChain is no SDE; choose parts that go together"),
        (["experiment=heartbeat", "sde=vp"], "task=Binary is for BinaryChain, and sde=VP is no BinaryChain"),
        (
            ["experiment=heartbeat", "parameterisation=edm"],
            "parameterisation=EDM is for SDEs, and sde=BinaryChain is no",
        ),
        (
            ["experiment=heartbeat", "training/loss=sigma2"],
            "training/loss=DenoisingScoreMatching is for SDEs, and sde=",
        ),
        (["experiment=heartbeat", "data=digits"], "task=binary is for data of two levels, and these are 17 levels"),
        (
            ["experiment=heartbeat", "training.dequantise=uniform"],
            "sde=binary takes bits, and these data are not two numbers",
        ),
        (["data=heartbeat", "data.period=1"], "data.period=1 must be at least 2: type data.period=5"),
        (["sde=chain", "sde.T=10"], "sde.T=10: step 6 of the schedule has beta=1.12, which must be positive"),
        (["sde=chain", "sde.T=2.5"], "sde.T=2.5 must be a whole number of steps"),
        (
            ["sde=chain", "sde.schedule.first=0"],
            "sde.schedule.first=0.0 must be positive and at most sde.schedule.last",
        ),
        (["sde=chain", "sde/schedule=cosine", "sde.schedule.s=-1"], "sde.schedule.s=-1.0 must be at least 0"),
        (["sde=chain", "sde/schedule=inverse", "sde.schedule.largest=2"], "sde.schedule.largest=2.0 must be positive"),
        (["sde=chain", "sde/schedule=inverse", "sde.schedule.largest=1"], "of the schedule has beta=1, which must be"),
        (
            ["sampler=ancestral", "sampler.predictor.variance=learnt"],
            "sampler.predictor.variance=learnt must be one of",
        ),
        (["model.embedding=fourier"], "model.embedding=fourier must be one of smooth, steps"),
        (
            ["model.pixel_features=[0]"],
            "model.pixel_features=[0.0] must lie in (0, 1e6]; type model.pixel_features=auto",
        ),
        (
            ["training/loss=blend", "training.loss.levels.share=1"],
            "training.loss.levels.share=1.0 must lie between 0 and",
        ),
        (["task=bound", "task.steps=0", "data=mixture", "model=oracle"], "task.steps=0 must be at least 1"),
        (["task=bound", "task.bound.terms=3", "data=mixture", "model=oracle"], "task.bound.terms=3 must be even"),
        (["task=bound", "task.decoder=discretised", "data=mixture", "model=oracle"], "task.decoder=discretised is for"),
        (["data=mixture", "model.shape=[3]"], "model.shape=[3] is not the data's, [2]; type model.shape=auto"),
        (["data=moons", "model=energy_mlp", "model.net.shape=[3]"], "model.net.shape=[3] is not the data's, [2]"),
        (["model=oracle"], "model=oracle needs data whose density is a mixture"),
        (["data=mixture", "model=oracle", "task=train"], "task=train has nothing to train"),
        (["data=mixture", "model=oracle", "task=likelihood", "points=nowhere.npy"], "points=nowhere.npy"),
        (["data=arrays"], "data.path is not set"),
        (["task=restore", "data=mixture", "model=oracle"], "operator=superresolve is for images, and the data are"),
        (["task=impute", "operator=mask"], "operator.path is not set"),
        (["task=impute", "operator.noise=-1"], "operator.noise=-1.0 must be a finite std, at least 0"),
        (["task=impute", "conditioner=exact"], "conditioner=exact needs data whose density is a mixture"),
        (["task=impute", "task.draws=0"], "task.draws=0 must be at least 1"),
        (["sde._target_=os.system"], "sde._target_=os.system is not a class of this project"),
    ],
)
def test_mistakes_name_the_key_the_value_and_the_bound(tmp_path, overrides, message):
    with pytest.raises((ValueError, OSError)) as caught:
        job(tmp_path, *overrides)
    assert message in str(caught.value)


def test_bad_files_are_named(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((5, 2)), b=np.ones((5, 2)))
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [np.nan, 3.0], [1.0, 1.0]]))
    (tmp_path / "empty").mkdir()
    for overrides, message in [
        (["data=arrays", f"data.path={tmp_path}/two.npz", "data.key=c"], "data.key=c"),
        (["data=arrays", f"data.path={tmp_path}/nan.npy"], "NaN"),
        (["data=images", f"data.path={tmp_path}/empty"], "holds no images"),
    ]:
        with pytest.raises((ValueError, OSError), match=message):
            job(tmp_path, *overrides)


# Sweeps


def test_a_sweep_trains_each_network_once_and_ends_with_one_table(tmp_path):
    words = ("data=moons", "count=20", "sampler.steps=3", *TINY)
    done = command("-m", "sde=ve,vp", "sampler=em,ddim", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "store").iterdir())) == 2
    rows = list(csv.DictReader((tmp_path / "sweep" / "summary.csv").open()))
    assert [row["status"] for row in rows] == ["ok"] * 4 and (tmp_path / "sweep" / "summary.png").exists()
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())[0] == "0-moons-ve-em"
    for path in (tmp_path / "sweep").glob("summary.*"):
        path.unlink()
    command("-m", "sde=ve", "sampler=em", *words, folder=tmp_path)
    (again,) = csv.DictReader((tmp_path / "sweep" / "summary.csv").open())
    assert again["sliced_wasserstein"] == rows[0]["sliced_wasserstein"], "the same folder once more"


def test_a_failed_job_does_not_lose_the_others(tmp_path):
    done = command("-m", "sampler.steps=0,3", "data=mixture", "model=oracle", "sampler=em", "count=20", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep" / "summary.csv").open()))
    assert [row["status"] for row in rows] == ["failed", "ok"] and "sampler.steps=0 must be at least 1" in rows[0][
        "error"
    ]


def test_a_sweep_finds_its_jobs_whatever_the_clocks_say(tmp_path):
    """The clock goes back an hour whenever it is read; files of an earlier sweep have times of the future, and those of
    this one times of the past.
    """
    code = (
        "import itertools, os, sys, time\n"
        "from scoresde import cli\n"
        "from scoresde.tasks import Record\n"
        "ticks, close, stamp = itertools.count(), Record.close, float(sys.argv.pop(1))\n"
        "time.time = lambda: 1.7e9 - 3600 * next(ticks)\n"
        "def closed(self, failed=None):\n"
        "    close(self, failed)\n"
        "    for path in self.folder.rglob('*'): os.utime(path, (stamp, stamp))\n"
        "Record.close = closed\n"
        "cli.command()\n"
    )
    words = ["-m", "data=mixture", "model=oracle", "sampler=em", "count=20", f"hydra.sweep.dir={tmp_path}/sweep"]
    for stamp, steps in (("4e9", "2,3"), ("0", "4")):
        call = [sys.executable, "-c", code, stamp, *words, "threads=1", f"sampler.steps={steps}"]
        done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT})
        assert done.returncode == 0, done.stdout + done.stderr
        rows = list(csv.DictReader((tmp_path / "sweep" / "summary.csv").open()))
        assert [row["choices"].split("sampler.steps=")[1] for row in rows] == steps.split(",")


def test_a_sweep_leaves_out_the_jobs_of_others(tmp_path, capsys):
    """Those of an earlier sweep in its folder, and a run that a user put there; one that was killed has failed."""

    def done(name: str, group: str | None) -> None:
        with Record(tmp_path / name, group=group) as record:
            record.finish({"nfe": 1})

    begin(tmp_path)
    for name in ("0-a", "1-b", "2-c"):
        done(name, "sweep")
    assert summarise(tmp_path)
    begin(tmp_path)
    done("0-a", "sweep")
    done("2-c", None)
    assert summarise(tmp_path)
    assert [row["job"] for row in csv.DictReader((tmp_path / "summary.csv").open())] == ["0"]
    Record(tmp_path / "1-b", group="sweep").events.close()
    assert not summarise(tmp_path) and "1-b: it ended before it began" in capsys.readouterr().out
    begin(tmp_path)
    assert not summarise(tmp_path) and "no job of this sweep" in capsys.readouterr().out


def test_processes_of_a_launcher_share_a_sweep(tmp_path):
    """The callback of a sweep is copied to real worker processes, and its lock is not."""
    words = ("-m", "sampler.steps=0,3", "data=mixture", "model=oracle", "sampler=em", "count=20")
    done = command(*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep" / "summary.csv").open()))
    assert [row["status"] for row in rows] == ["failed", "ok"] and (tmp_path / "sweep" / "summary.png").exists()
    assert "failed: sampler.steps=0: ValueError: sampler.steps=0 must be at least 1" in done.stdout
    assert not (tmp_path / "run").exists() and float(rows[1]["count"]) == 20


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    (tmp_path / "sweep").mkdir()
    words = ("-m", "sampler.steps=2,3", "data=mixture", "model=oracle", "sampler=em", "count=20")
    with FileLock(tmp_path / "sweep" / ".lock"):
        message = refused(*words, folder=tmp_path)
    assert message.startswith(f"error: hydra.sweep.dir={tmp_path}/sweep is in use by another sweep; choose")
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [".lock"]
    words = [word.removesuffix(",3") for word in words]
    assert command(*words, folder=tmp_path).returncode == 0, "the next one may have it"


# Start-up, signals, loggers


@pytest.mark.parametrize("words", [["--help"], ["data=mixture", "model=oracle", "sampler=em"]])
def test_a_reader_that_has_gone_is_no_error(tmp_path, words):
    places = [] if "--help" in words else [f"hydra.run.dir={tmp_path}/run", "count=5", "sampler.steps=2"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words, *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    process.stdout.close()  # as `| head` does
    text = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 141 and "Error" not in text and "error" not in text, text
    assert not places or (tmp_path / "run" / "metrics.json").exists()


def test_too_little_memory_is_told_from_a_bug():
    errors = []
    for allocate in (np.empty, torch.empty):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate(10**15)
        errors.append(caught.value)
    assert all(map(out_of_memory, [*errors, torch.cuda.OutOfMemoryError("CUDA out of memory.")]))
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def test_help_is_quick_and_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['run.py', '--help']; from scoresde import cli\n"
        "try: cli.command()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("python run.py ") >= 6
    samplers = sorted(path.stem for path in (ROOT / "conf" / "sampler").glob("*.yaml"))
    assert f"sampler: {', '.join(samplers)}" in done.stdout


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_before_they_end_it(tmp_path, number, code):
    places = [f"store={tmp_path}/store", f"hydra.run.dir={tmp_path}/run", "threads=1"]
    words = ["task=train", "data=moons", "training.steps=100000", "training.evaluate=0", "training.save_seconds=1000"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *places, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    while not list(tmp_path.glob("store/*/log.jsonl")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(number)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == code and "saved: run the same command to go on" in text and "Traceback" not in text
    assert len(list(tmp_path.glob("store/*/step-*"))) == 1


def test_wandb_offline_holds_the_run(tmp_path):
    done = command(
        "data=mixture",
        "model=oracle",
        "sampler=ode",
        "count=20",
        "logger=wandb",
        folder=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"},
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    where = file.parent.relative_to(tmp_path)
    assert f"the run lies in {where}; type wandb sync {where}" in done.stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["task=sample", "sampler=em", "sampler.steps=2", "count=4"], "sample/mixture-ve-em"),
        (["task=likelihood", "count=4"], "likelihood/mixture-ve"),
    ],
)
def test_a_folder_names_the_sampler_where_one_draws_and_its_log_holds_what_is_printed(tmp_path, words, name):
    words = ["data=mixture", "model=oracle", f"store={tmp_path}/store", *words]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / name).iterdir()
    logged, shown = (folder / "run.log").read_text(), done.stdout
    table = shown[shown.index("  count ") :].strip()
    assert all(line in logged for line in table.splitlines()) and "count" in table
    pictures = [str(path.relative_to(tmp_path)) for path in folder.glob("*.png")]
    assert pictures and all(path in table for path in pictures)


@pytest.mark.parametrize("task", ["sample", "impute", "likelihood", "train", "work_precision", "manifold"])
def test_the_name_of_a_run_holds_a_sampler_that_it_draws_by(task, monkeypatch):
    with hydra.initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("config", overrides=[f"task={task}", "data=moons"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # is put back at the end
    HydraConfig.instance().set_config(cfg)
    name = OmegaConf.select(cfg, "hydra.run.dir").split("/")[-2]
    assert name == ("moons-ve-pc" if task in ("sample", "impute") else "moons-ve")


def test_what_takes_a_second_to_import_is_imported_where_it_is_used():
    code = (
        "import sys; from scoresde import cli, tasks, training, samplers, likelihood, models, data, latent\n"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"wandb", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize", "datasets", "pyarrow"}
    assert not heavy & set(found.stdout.split())


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_composes(name):
    assert compose(f"experiment={name}")["task"]["_target_"].startswith("tasks.")


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_that_wait_spin_a_little_and_sleep(given):
    """Set before torch is imported, which reads it once; what the user set stays."""
    code = (
        "import os, runpy, sys; sys.argv = ['run.py', '--help']\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    expected = "PASSIVE 3000 False" if given is None else f"{given} None False"
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize("words", [
    ["data=moons", "training.steps=7", "model.width=8", "count=null", "points='a b.npy'"],
    ["sampler=pc", "~sampler.corrector", "sampler.steps=3"],
    ["sampler=heun", "sampler.grid={width: 3}"],
    ["task=likelihood", "task/crosscheck=immse", "+task.crosscheck.x=1", "likelihood.rtol=1e-3"],
    ["experiment=mnist", "data=images", "data.path=x", "data.size=[8,6]", "training.images.steps=3"],
    ["sde=ve", "sde.sigma_max=${seed}", "seed=4", "condition=[1,2]", "guidance=2"],
])  # fmt: skip
def test_the_tests_compose_as_hydra_does(words):
    """conftest.compose puts values in by itself."""
    try:
        expected = OmegaConf.to_container(composed(tuple(words)), resolve=True)
    except HydraException as error:
        with pytest.raises(HydraException, match=re.escape(str(error))):
            compose(*words)
    else:
        assert compose(*words) == expected
