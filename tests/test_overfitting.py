"""Networks kept during a training equal the training at that time, also after interruptions; overfitting shows."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.data import Data
from scoresde.likelihood import Likelihood
from scoresde.sde_lib import VE
from scoresde.tasks import Along, Overfitting, Record
from scoresde.training import checkpoint

from .conftest import compose, job_of
from .test_training import network, planar, trainer, weights

TINY = (
    "training.steps=30",
    "training.batch=32",
    "training.warmup=2",
    "training.evaluate=2",
    "data.count=200",
    "data.test_count=50",
)
LOOSE = ("likelihood.rtol=1e-3", "likelihood.atol=1e-3")


def job(folder, *overrides: str) -> dict:
    choices = {"task": "overfitting", "data": "moons", "sde": "ve", "sampler": "em", "model": "mlp"}
    run(compose(f"store={folder}/store", *overrides), choices, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


def averages(folder) -> dict[str, torch.Tensor]:
    found = {path.name: checkpoint.load(path).tensors["ema"] for path in sorted(folder.glob("kept-*"))}
    return {name: flat(each) for name, each in found.items()}


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[key].flatten().double() for key in sorted(tensors)])


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_the_average_of_a_training_that_ends_there(tmp_path):
    keys = {"schedule": "constant", "evaluate": 0}
    torch.manual_seed(0)
    trainer(**keys).fit(VE(), network(), planar(), tmp_path, keep=(5, 12))
    kept = averages(tmp_path)
    assert list(kept) == ["kept-00000005", "kept-00000012"]
    for steps, found in zip((5, 12), kept.values(), strict=True):
        torch.manual_seed(0)
        ended = trainer(steps=steps, **keys).fit(VE(), network(), planar())
        assert torch.equal(found, flat(ended.state_dict()))


@pytest.mark.parametrize("stop", [4, 5, 9])
def test_keeping_survives_interruption_and_changes_nothing(tmp_path, stop):
    def fit(folder, keep, interrupt=None):
        def record(event):
            if event["step"] == interrupt and "gradient" in event:
                os.kill(os.getpid(), signal.SIGINT)

        torch.manual_seed(7)
        model = network()
        torch.manual_seed(8)
        try:
            return weights(trainer().fit(VE(), model, planar(), folder, record, keep))
        except KeyboardInterrupt:
            torch.manual_seed(99)
            return fit(folder, keep)

    plain = fit(tmp_path / "a", ())
    assert torch.equal(plain, fit(tmp_path / "b", (5, 9, 12)))
    assert torch.equal(plain, fit(tmp_path / "c", (5, 9, 12), stop))
    straight, broken = averages(tmp_path / "b"), averages(tmp_path / "c")
    assert len(broken) == 3 and all(torch.equal(straight[name], broken[name]) for name in broken)
    assert not list((tmp_path / "a").glob("kept-*")) and len(list((tmp_path / "b").glob("step-*"))) <= 2


def test_a_trained_network_is_trained_once_more_to_the_same_weights(tmp_path, caplog):
    """task=overfitting uses the same network; what it needs from the training is recomputed once."""
    job(tmp_path / "a", "task=overfitting", "data=moons", "count=5", "task.shares=[0.5,1]", *LOOSE, *TINY)
    job(tmp_path / "b", "task=train", "data=moons", *TINY)
    (fresh,), (folder,) = (list((tmp_path / name / "store").iterdir()) for name in "ab")
    assert fresh.name == folder.name, "what is kept is no part of what a network is"
    before = (folder / "log.jsonl").read_text()
    job(tmp_path / "b", "task=overfitting", "data=moons", "count=5", "task.shares=[0.5,1]", *LOOSE, *TINY)
    first, second = averages(fresh), averages(folder)
    assert list(first) == ["kept-00000015", "kept-00000030"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (folder / "log.jsonl").read_text() == before and not (folder / "again").exists()
    assert "ended in other weights" not in caplog.text
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("kept-*")}
    job(tmp_path / "b", "task=overfitting", "data=moons", "count=5", "task.shares=[1]", *LOOSE, *TINY)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.glob("kept-*")}, "found, and not made again"
    (folder / "kept-00000030" / "ema.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="kept-00000030.*is not what was written.*remove .*trains once more"):
        job(tmp_path / "b", "task=overfitting", "data=moons", "count=5", "task.shares=[1]", *LOOSE, *TINY)


def test_what_was_kept_is_a_network_to_use(tmp_path):
    words = ["data=moons", "sampler=em", "sampler.steps=3", "count=10", *LOOSE, *TINY]
    whole = job(tmp_path, "task=overfitting", "task.shares=[0.5,1]", *words)
    (folder,) = (tmp_path / "store").iterdir()
    x = []
    for name in ("kept-00000015", "step-00000030"):
        job(tmp_path, "task=sample", f"checkpoint={folder}/{name}", *words)
        x.append(np.load(tmp_path / "run" / "samples.npz")["x"])
    assert not np.array_equal(x[0], x[1]), "another network"
    again = job(tmp_path, "task=overfitting", f"checkpoint={folder}", *words)
    assert again["nll_nats"] == whole["nll_nats"] and again["train_nll_nats"] == whole["train_nll_nats"]
    assert "held_out_loss" in (folder / "log.jsonl").read_text()


# --- the task ---------------------------------------------------------------------------------------------------------


def test_the_end_is_what_task_likelihood_says(tmp_path):
    words = ["data=moons", "count=12", *LOOSE, *TINY]
    metrics = job(tmp_path, "task=overfitting", "task.shares=[0.5,1]", *words)
    arrays = dict(np.load(tmp_path / "run" / "overfitting.npz"))
    assert arrays["step"].tolist() == [15, 30]
    assert arrays["log_prob_train"].shape == arrays["log_prob_held_out"].shape == (2, 12)
    alone = job(tmp_path, "task=likelihood", *words)
    assert metrics["nll_nats"] == alone["nll_nats"] and metrics["nll_stderr"] == alone["nll_stderr"]


def test_the_numbers_by_hand():
    task, data = Overfitting(Likelihood()), Data(torch.zeros(3, 1), torch.zeros(3, 1), 0.0, 1.0, shuffle=False)
    train, held_out = np.array([[3.0, 3, 3], [2, 2, 2], [1, 1, 1]]), np.array([[3.0, 3, 3], [2, 2, 2], [2, 3, 4]])
    found = task.metrics(data, [10, 20, 30], train, held_out)
    assert found["best_step"] == 20 and found["best_nll_nats"] == 2 and found["overfitting_nats"] == 1
    assert found["overfitting_stderr"] == pytest.approx(1 / math.sqrt(3)) and found["generalisation_gap_nats"] == 2
    integers = Data(torch.zeros(3, 2).int(), torch.zeros(3, 2).int(), 0.0, 1.0, levels=4, shuffle=False)
    found = task.metrics(integers, [10, 20, 30], train, held_out)
    assert found["overfitting_bits_per_dim"] == pytest.approx(0.5 / math.log(2)) and "bound" in found


def test_overfitting_shows(tmp_path):
    """Sixteen points, and a network that trains long enough to memorise them."""
    words = ["data=moons", "data.count=16", "data.test_count=100", "training.steps=600", "training.batch=64"]
    metrics = job(tmp_path, "task=overfitting", "task.shares=[0.1,0.3,1]", "count=60", *words, *LOOSE)
    arrays = np.load(tmp_path / "run" / "overfitting.npz")
    nll, on_train = (-arrays[f"log_prob_{kind}"].mean(1) for kind in ("held_out", "train"))
    assert on_train[0] > on_train[1] > on_train[2] + 0.3
    assert nll[2] > nll[:2].min() + 0.5 and metrics["best_step"] < 600
    assert metrics["overfitting_nats"] > 3 * metrics["overfitting_stderr"] > 0
    assert (tmp_path / "run" / "overfitting.png").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["data=mixture", "model=oracle"], "task=overfitting looks back along a training, and there is none"),
        (["data=moons", "task.shares=[0,1]", *TINY], "must be shares of the training, each above 0 and at most 1"),
        (["data=moons", "task.shares=[]", *TINY], "task.shares=[] must be shares"),
        (["data=moons", "task.batch=0", *TINY], "task.batch=0 must be at least 1"),
    ],
)
def test_mistakes_name_the_key(words, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        job(tmp_path, "task=overfitting", *words)
    assert message in str(caught.value)


def test_a_checkpoint_without_its_way_is_refused(tmp_path):
    job(tmp_path, "task=train", "data=moons", *TINY)
    (folder,) = (tmp_path / "store").iterdir()
    with pytest.raises(ValueError, match="checkpoint= has no kept-"):
        job(tmp_path, "task=overfitting", "data=moons", f"checkpoint={folder}", *TINY)
    record = Record(tmp_path / "bare")
    with pytest.raises(ValueError, match="looks back along a training"):
        Overfitting(Likelihood())(job_of(VE(), None, planar(), record, along=Along(network())))
    record.close()
