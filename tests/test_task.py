"""The contract between a run and its task: what is asked, when, and what is refused before a training."""

import json
import logging
import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from scoresde import tasks
from scoresde.cli import run
from scoresde.conf import schema
from scoresde.data import Data
from scoresde.models import ConditionalScore
from scoresde.sde_lib import VP
from scoresde.tasks import Given, Job, Network, Record, Task

from .conftest import choices, compose

CHOICES = {"task": "toy", "data": "moons", "sde": "vp", "sampler": "em", "model": "mlp"}
WORDS = ("data=moons", "sde=vp", "training.steps=3", "training.batch=8", "training.evaluate=0")


@dataclass(frozen=True)
class Toy(Task):
    """Returns the mean length of the score at held-out data, unless their number is refused."""

    count: int = 4
    device: str = "cpu"

    conditions: ClassVar[str] = "one"

    def check(self, sde, data):
        if self.count > len(data.test):
            raise ValueError(f"task.count={self.count} must be at most {len(data.test)}; type task.count=4")

    def __call__(self, job: Job) -> dict:
        network = job.networks.score()
        x = job.data.encode(job.data.test[: self.count]).float()
        found = network.model(x, torch.full((len(x),), 0.5))
        return {"count": self.count, "length": float(found.norm(dim=1).mean()), "updates": network.training[-1]["step"]}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(tasks, "Toy", Toy, raising=False)
    monkeypatch.setattr(Toy, "__module__", "scoresde.tasks.toy")  # only classes of the project are built


def job(folder, *words: str, **keys) -> dict:
    cfg = compose(*WORDS, *words, f"store={folder}/store") | {"task": {"_target_": "tasks.Toy", **keys}}
    run(cfg, CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


def test_a_task_is_one_class_and_one_node(tmp_path, toy):
    found = job(tmp_path, count=5)
    assert found["count"] == 5 and found["length"] > 0 and found["updates"] == 3
    (folder,) = (tmp_path / "store").iterdir()
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert job(tmp_path, count=5)["length"] == found["length"], "found in the store"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == stamps


def test_a_task_refuses_before_a_training(tmp_path, toy):
    with pytest.raises(ValueError, match="task.count=1000000 must be at most"):
        job(tmp_path, count=10**6)
    assert not (tmp_path / "store").exists()
    event = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert event["error"].startswith("ValueError: task.count=1000000")


TASKS_OF_POINTS = ("likelihood", "encode", "interpolate", "bound", "impute")


@pytest.mark.parametrize("name", TASKS_OF_POINTS)
@pytest.mark.parametrize("file", ["absent", "of_another_width"])
def test_points_are_refused_before_a_training(tmp_path, name, file):
    np.save(tmp_path / "of_another_width.npy", np.full((4, 3), np.nan if name == "impute" else 1.0))
    cfg = compose(f"task={name}", *WORDS, f"store={tmp_path}/store", f"points={tmp_path}/{file}.npy")
    with pytest.raises((ValueError, OSError), match="points="):
        run(cfg, CHOICES, tmp_path / "run")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", TASKS_OF_POINTS)
def test_a_file_of_points_is_described_once(tmp_path, name, caplog):
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).numpy()
    x[0, 0] = np.nan if name == "impute" else x[0, 0]
    np.save(tmp_path / "points.npy", x)
    small = ["task.steps=3"] if name == "bound" else ["sampler=em", "sampler.steps=2"] if name == "impute" else []
    cfg = compose(f"task={name}", *WORDS, *small, f"store={tmp_path}/store", f"points={tmp_path}/points.npy")
    with caplog.at_level(logging.INFO):
        run(cfg, CHOICES, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    (place,) = [i for i, line in enumerate(said) if "points.npy: " in line]
    assert place < next(i for i, line in enumerate(said) if line.startswith("training"))


def test_a_task_for_one_law_gets_the_score_of_its_y(tmp_path, toy):
    labelled = ("data=mixture", "model=oracle", "data.condition=labels")
    with pytest.raises(ValueError, match="Toy works on p\\(x \\| y\\) of one class: type condition=LABEL"):
        job(tmp_path, *labelled)
    seen = []

    @dataclass(frozen=True)
    class Looks(Toy):
        __module__ = Toy.__module__

        def __call__(self, job):
            seen.append(job.networks.score().model)
            return {"count": len(job.data.test)}

    class Each(Looks):
        __module__ = Toy.__module__
        conditions = "each"

    class Never(Looks):
        __module__ = Toy.__module__
        conditions = "none"

    for kind in (Looks, Each):
        tasks.Toy = kind
        job(tmp_path, *labelled, "condition=1")
    assert isinstance(seen[1], ConditionalScore) and not isinstance(seen[0], ConditionalScore)
    tasks.Toy = Never
    with pytest.raises(ValueError, match="compares networks of p"):
        job(tmp_path, *labelled, "condition=1")


def test_a_task_without_metrics_is_named(tmp_path, toy):
    class Silent(Toy):
        __module__ = Toy.__module__

        def __call__(self, job):
            return None

    tasks.Toy = Silent
    with pytest.raises(ValueError, match="Silent returned None; a task returns its metrics by name, a dict"):
        job(tmp_path)


@pytest.mark.parametrize("name", choices("task"))
def test_every_task_keeps_the_contract(name):
    kind = schema.locate(compose(f"task={name}")["task"]["_target_"], "task")
    task = object.__new__(kind)  # at its defaults, without the checks of its keys
    assert isinstance(task, Task) and task.conditions in ("each", "one", "none")
    assert isinstance(task.process, type) and isinstance(task.refuses_guidance, bool)


def test_a_long_target_names_the_same_network(tmp_path, toy):
    job(tmp_path)
    cfg = compose(*WORDS, f"store={tmp_path}/store") | {"task": {"_target_": "scoresde.tasks.Toy"}}
    for group in ("sde", "data", "model", "parameterisation"):
        cfg[group] = cfg[group] | {"_target_": f"scoresde.{cfg[group]['_target_']}"}
    run(cfg, CHOICES, tmp_path / "long")
    assert len(list((tmp_path / "store").iterdir())) == 1


@dataclass(frozen=True)
class Fussy(Task):
    """Refuses whatever it is given, in words that hold a user's text."""

    path: str = ""
    count: int = 1

    def __post_init__(self):
        raise ValueError(f"`path`={self.path}: no `count` there; type `path`=FILE, or `count`=2 with dtype=float64")

    def __call__(self, job):
        return {}


@pytest.mark.parametrize("text", ["a", "`a`", "a`b", "`", "``", "`x y`.`z`"])
def test_only_keys_of_the_class_are_put_in_full(monkeypatch, text):
    monkeypatch.setattr(tasks, "Fussy", Fussy, raising=False)
    monkeypatch.setattr(Fussy, "__module__", "scoresde.tasks.fussy")
    with pytest.raises(ValueError) as caught:
        schema.build({"_target_": "tasks.Fussy", "path": text}, "a.b", {"a.b": "c"})
    assert str(caught.value) == f"c.path={text}: no c.count there; type c.path=FILE, or c.count=2 with dtype=float64"


def test_networks_at_hand_name_the_door_that_is_closed(tmp_path):
    given = Given(score=lambda x, t: -x, classifier=Network("c", [{"step": 1}]))
    assert given.score().training == [] and given.classifier().training == [{"step": 1}]
    doors = {"sampled": (), "along": ((0.5,),), "averages": (3,), "rivals": (), "models": (), "other": ("path",)}
    for door, arguments in (doors | {"features": ()}).items():
        with pytest.raises(ValueError, match=rf"needs networks\.{door}\(\); type Given\({door}=...\)"):
            getattr(given, door)(*arguments)
    with Record(tmp_path / "run") as record, pytest.raises(ValueError, match=r"networks\.score\(\)"):
        data = Data(torch.randn(9, 2), torch.randn(9, 2), 0.0, 1.0, shuffle=False)
        Toy()(Job(VP(), data, record, Given()))


def test_a_failed_record_notes_its_reason(tmp_path):
    with pytest.raises(ZeroDivisionError), Record(tmp_path):
        1 / 0  # noqa: B018
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("metrics", [{}, {"error_bar": float("nan"), "absent": None}])
def test_a_run_may_have_no_metrics(tmp_path, metrics, capsys):
    """A task may report nothing, or only numbers that one point does not have."""
    with Record(tmp_path) as record:
        record.finish(metrics)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}
    assert os.path.relpath(tmp_path) in capsys.readouterr().out


def test_the_logger_gets_pictures_and_no_other_file(tmp_path, monkeypatch):
    """The path of a network, which task=export shows, is no image."""
    logged = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=lambda path: path))
    with Record(tmp_path) as record:
        record.wandb = SimpleNamespace(log=logged.append, summary={}, finish=lambda exit_code: None)
        record.picture(tmp_path / "samples.png")
        record.picture(tmp_path / "score_sde.pth")
        record.finish({"tensors": 3})
    assert logged == [{"samples": str(tmp_path / "samples.png")}] and record.wandb.summary == {"tensors": 3}
