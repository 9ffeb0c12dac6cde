"""Keys that decide nothing in a run are refused, with the key that does; parts and shared sweeps are mentioned."""

import ast
import inspect
import logging
import re
import textwrap

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf, open_dict

from scoresde.conf import assemble, schema, unused
from scoresde.tasks import Task

from .conftest import ROOT, choices, written
from .test_readme import LINES, composable, uses_examples


def prepared(*words: str, shared: bool = False) -> Task:
    """Prepares a run of these words as the command line does; returns its task."""
    with hydra.initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(words), return_hydra_config=True)
    chosen = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    typed = unused.Typed(words, OmegaConf.to_container(cfg, resolve=False), shared)
    return assemble.prepare(OmegaConf.to_container(cfg, resolve=True), chosen, None, typed)[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("experiment=manifold training.steps=300", "type task.trainers.without_noise.steps=300 or task.trainers.with_"),
        ("experiment=low_density seed=4", "type task.trainers.clean.seed=4 or"),
        ("experiment=lsgm training.steps=3", "type task.models.vae.training.steps=3 or"),
        ("experiment=lsgm model.channels=[3]", "task=elbo asks for no score .*; leave it out"),
        ("experiment=vae sde.sigma_max=3", "task=elbo asks for no score"),
        ("experiment=vae likelihood.rtol=1e-3", "type task.likelihood.rtol=1e-3, or leave it out"),
        ("experiment=slow_mixing sampler.steps=3", "type task.samplers.langevin.steps=3 or"),
        ("data=moons task=sample likelihood.rtol=1e-3", "task=sample reads no likelihood; leave it out"),
        ("data=moons task=likelihood sampler.steps=3", "task=likelihood reads no sampler"),
        ("data=moons task=likelihood sampler/grid=uniform", "task=likelihood reads no sampler"),
        ("data=moons task=bound task.likelihood=null likelihood.rtol=1e-3", "task=bound reads no likelihood"),
        ("data=moons operator.noise=1", "which task=impute and task=restore do"),
        ("data=moons conditioner.vectors.particles=3", "which task=impute and task=restore do"),
        ("data=moons task=impute conditioner.images.bound=3", "the data are vectors; type conditioner.vectors.bound=3"),
        ("classifier=auto data.condition=labels classifier.vectors.width=3", "type classifier.images.width=3"),
        ("data=moons training.drop=0.2", "takes no y that could be withheld"),
        ("data=mixture model=oracle training.steps=3", "model=oracle is exact and is not trained"),
        ("data=mixture model=oracle training/loss=sliced", "model=oracle is exact and is not trained"),
        ("data=mixture model=oracle parameterisation.sigma_data=2", "model=oracle is exact"),
        ("data=moons checkpoint=folder training.steps=3", "checkpoint=folder is trained"),
        ("data=moons task=train seed=3", "type training.seed=3, or leave it out"),
        ("data=moons task=train dtype=float64", "task=train reads no dtype"),
        ("data=moons task=train count=3", "task=train reads no count"),
        ("task=train_classifier model.channels=[3,3,3]", "task=train_classifier asks for no score"),
        ("task=train_classifier training.loss.stratified=false", "a classifier is trained by cross-entropy"),
        ("data=moons training.momentum=0.3", "type training.optimiser=muon, or leave it out"),
        ("data=moons sampler=ode sampler.steps=3", "type sampler.method=torchdiffeq.euler or"),
        ("data=moons task=likelihood likelihood.steps=3", "likelihood.method=tsit5 does without it"),
        ("data=moons task=encode task.method=torchdiffeq.rk4 task.rtol=1e-3", "type task.method=tsit5 or"),
        ("data=moons task=impute conditioner=dps_gaussian conditioner.steps=3", "type conditioner.rule=published"),
    ],
)  # fmt: skip
def test_a_key_that_decides_nothing_is_refused_with_the_one_that_does(line, says):
    words = line.split()
    with pytest.raises(ValueError) as caught:
        prepared(*words)
    word = words[-1]
    assert str(caught.value).startswith(f"{word} decides nothing in this run: ")
    assert re.search(says, str(caught.value))


@pytest.mark.parametrize(
    "line",
    [
        "data=moons data.condition=labels training.drop=0.2",
        "experiment=manifold task.trainers.with_noise.steps=300 model.width=8 parameterisation=score",
        "experiment=lsgm sde.eps=1e-3 sampler.steps=3 task.models.vae.training.steps=3",
        "experiment=generators training.steps=3 model.width=8 guidance=1",
        "experiment=oracle likelihood.rtol=1e-3 sde.sigma_max=3 seed=1",
        "data=moons task=ema checkpoint=folder training.loss.stratified=false likelihood.rtol=1e-3",
        "classifier=auto condition=3 training.steps=3 classifier.images.dropout=0.3 sampler.steps=3",
        "classifier=auto checkpoint=folder condition=3 training.steps=3",
        "task=train_classifier training.steps=3 classifier.images.dropout=0.3",
        "data=moons task=train sampler.last=tweedie training.seed=3",
        "data=moons training.momentum=0.3 training.optimiser=muon",
        "data=moons sampler=ode sampler.method=torchdiffeq.rk4 sampler.steps=3",
    ],
)
def test_other_keys_are_not(line):
    prepared(*line.split())


@pytest.mark.parametrize(
    "line", [line for line in LINES if "." in line and not re.search(r"path=|checkpoint=|other=|data=celeba|--", line)]
)
def test_no_command_of_the_pages_is_refused(line):
    if not uses_examples(line):
        prepared(*composable(line))


@pytest.mark.parametrize(("line", "shared"), [("task=likelihood sampler=em", False), ("sampler=ode count=3", True)])
def test_a_part_and_a_shared_sweep_are_mentioned(line, shared, caplog):
    """A command line keeps ``sampler=em`` when another task is chosen, and jobs of a sweep share their words."""
    caplog.set_level(logging.INFO)
    extra = ["sampler.steps=7"] if shared else []
    prepared("data=moons", *line.split(), *extra, shared=shared)
    assert f"{extra[0] if shared else 'sampler=em'} decides nothing in this run" in caplog.text


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        (["task=sample,likelihood", "sampler.steps=3"], True),
        (["sampler=em,ode", "seed=1"], True),
        (["checkpoint=a,b"], True),
        (["sampler.steps=3,4", "sampler=em"], False),
        (["seed=range(3)"], False),
    ],
)
def test_a_sweep_over_parts_shares_its_words(words, shared, tmp_path):
    OmegaConf.save({"hydra": {"overrides": {"task": words}}}, tmp_path / "multirun.yaml")
    assert unused.sweeps_over_parts(tmp_path) is shared
    assert unused.sweeps_over_parts(tmp_path / "elsewhere")


def test_samples_of_a_file_need_no_network(tmp_path):
    path = tmp_path / "samples.npy"
    np.save(path, np.random.default_rng(0).normal(size=(300, 2)))
    words, temperature = ["data=moons", f"task.samples={path}"], "task.tempering.temperature=2"
    assert prepared(*words, "task=memorisation").drawn_by == ()
    for word in ("sampler.steps=3", "training.steps=3", "sde.eps=1e-4", "checkpoint=folder", temperature):
        for task in ("evaluate", "memorisation"):
            with pytest.raises(ValueError, match=rf"^{word} decides nothing"):
                prepared(*words, f"task={task}", word)


SCORES = {"sampled": "score", "along": "score", "averages": "score"}


@pytest.mark.parametrize("name", choices("task"))
def test_a_task_requests_what_it_says(name):
    """The attribute ``requests`` holds the methods of ``job.networks`` that the class calls."""
    task = schema.locate(written("task", name)["_target_"], "task")
    tree = ast.parse(textwrap.dedent(inspect.getsource(task)))
    called = {
        SCORES.get(node.func.attr, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "networks"
    }
    declared = vars(task).get("requests", Task.requests)
    if isinstance(declared, property):
        constants = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(declared.fget))))
        declared = {node.value for node in constants if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    if name == "generators":  # models() returns the run's score too
        called.add("score")
    assert set(declared) == called


@pytest.mark.parametrize("group", ["training", "sampler", "likelihood", "conditioner", "task"])
def test_only_with_names_keys_of_its_class(group):
    for name in choices(group):
        target = written(group, name).get("_target_")
        if target is None:
            continue
        found = schema.locate(target, group)
        keys = set(inspect.signature(found).parameters)
        for key, (other, _) in getattr(found, "only_with", {}).items():
            assert {key, other} <= keys
