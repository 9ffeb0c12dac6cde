"""Every class that a yaml names is built with hostile numbers: its messages name the key where a user finds it.

A class writes its own keys in backticks and ``schema.build`` puts the node's place before them. So no message that
reaches a user holds a backtick, and each key in it stands with its place.
"""

import inspect
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from scoresde.cli import run
from scoresde.conf import schema

from .conftest import ROOT, SHAPES, compose, standard

PLACE = "x.y"
HOSTILE = (0, -1, 1e300, 2**62)
SIZES = ("models", "latent", "data")  # of these packages a huge whole number asks for memory, not for a message
ELSEWHERE = {"latent": 2, "shape": "auto"}  # what yaml files take from other nodes by ${...}
RECIPE = {
    "_target_": "training.Recipe",
    "model": {"_target_": "latent.WAE", "latent": 2, "networks": {"_target_": "latent.Dense"}},
    "training": {"_target_": "training.Trainer", "loss": {"_target_": "latent.WassersteinLoss"}},
}
VAE = RECIPE | {"model": {"_target_": "latent.VAE", "latent": 2}, "training": {"loss": {"_target_": "latent.Bound"}}}
MORE = {  # what a user chooses beside the values of a class's own yaml
    "samplers.PredictorCorrector": {"predictor": {"_target_": "samplers.Ancestral"}},
    "data.Unseen": {"shape": "auto"},
    "latent.VAE": {"prior": {"_target_": "latent.StandardNormal"}},
    "tasks.Elbo": {"models": {"one": VAE}},
    "tasks.Generators": {"models": {"one": RECIPE}},
}
ON_META = ("models.", "latent.")  # networks are made without memory, but for those that compute in their constructors:
EAGER = {"models.DiT", "models.Oracle", "models.Clock", "latent.ScorePrior"}
NEED_FILES = {"samplers.Matrix", "samplers.MaskFile", "data.Arrays", "data.Images", "data.Heartbeat", "data.Digits"}
"""Classes that read files before they look at their numbers; the tests of their packages have their messages."""


@cache
def found() -> dict[str, dict]:
    """Returns for each class that a yaml names the first node that names it, as written."""
    nodes: dict[str, dict] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict) and "_target_" in node:
            nodes.setdefault(node["_target_"], node)
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            walk(value)

    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        if "hydra" not in path.parts:
            walk(yaml.safe_load(path.read_text()))
    return nodes


@cache
def arguments_of(target: str) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Returns the arguments of a class's constructor, and their annotations."""
    cls = schema.locate(target, PLACE)
    return dict(inspect.signature(cls).parameters), typing.get_type_hints(cls.__init__)


def complete(node: Any, hint: Any = Any) -> Any:
    """Returns a node that can be built: without ``${...}``, and with the parts that yaml files choose by defaults."""
    if isinstance(node, str) and node.startswith("${"):
        name = re.split(r"[.{}]", node)[-2]
        return ELSEWHERE[name] if name in ELSEWHERE else part_of(hint) or compose().get(name)
    if isinstance(node, list):
        return [complete(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node and part_of(hint) and typing.get_origin(hint) is not dict:
        node = part_of(hint) | node
    if "_target_" not in node:
        inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else Any
        return {name: complete(each, inner) for name, each in node.items()}
    parameters, hints = arguments_of(node["_target_"])
    node, done = node | MORE.get(node["_target_"], {}), {"_target_": node["_target_"]}
    for name, parameter in parameters.items():
        value = complete(node.get(name), hints[name])
        if value is not None:
            done[name] = value
        elif parameter.default is parameter.empty:
            part = part_of(hints[name])
            done[name] = "auto" if part is None else part
    return done


def part_of(hint: Any) -> dict | None:
    """Returns a node of the first class that an annotation allows, None where it asks for none."""
    if typing.get_origin(hint) is dict:
        part = part_of(typing.get_args(hint)[1])
        return part and {"one": part}
    for each in typing.get_args(hint) or (hint,):
        for target, node in found().items():
            if isinstance(each, type) and each is not object and issubclass(schema.locate(target, PLACE), each):
                return complete(node)
    return None


def settled(target: str, shape: tuple[int, ...]) -> dict:
    """Returns a whole node of a class, what waits for the data filled in for data N(0, I) of a shape."""
    known = standard(shape) | {"bins": [1.0, 1.0, 4]}
    return schema.settle({"levels": complete(found()[target])}, shape, known)["levels"]


def attempt(node: dict) -> str:
    """Returns the message of the ValueError that building a node at PLACE ends in, nothing without one."""
    meta = node["_target_"].startswith(ON_META) and node["_target_"] not in EAGER
    try:
        with torch.device("meta" if meta else "cpu"):
            schema.check(node, PLACE)
            schema.build(node, PLACE)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(numeric(each) for each in typing.get_args(hint))


def hostile(node: dict) -> Iterator[tuple[str, dict]]:
    """Yields (key, node with a hostile value there) for the numeric keys of a node itself."""
    parameters, hints = arguments_of(node["_target_"])
    for key, parameter in parameters.items():
        present = node.get(key, parameter.default)
        for value in HOSTILE if numeric(hints[key]) and key != "shape" else ():  # the shape is the data's
            if value != 2**62 or not node["_target_"].startswith(SIZES):
                yield key, node | {key: [value for _ in present] if isinstance(present, list | tuple) else value}


def misnamed(message: str, key: str) -> list[str]:
    """Returns the places other than PLACE at which a message finds a key."""
    places = re.findall(rf"([\w./]*)\b{key}=", message) + re.findall(rf"([\w./]+\.){key}:", message)
    own = [""] if key in schema.ROOT else []  # ``count`` is a key of the run as well
    return [place for place in places if not place.startswith(f"{PLACE}.") and place not in own]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("target", sorted(found().keys() - NEED_FILES))
def test_messages_name_the_key_at_its_place(target):
    tried = [attempt(settled(target, shape)) for shape in SHAPES.values()]
    assert "" in tried, f"cannot be built with the values of its yaml: {tried}"
    node = settled(target, list(SHAPES.values())[tried.index("")])
    for key, wrong in hostile(node):
        try:
            message = attempt(wrong)
        except (RuntimeError, OverflowError, ZeroDivisionError, TypeError):  # no message of ours
            continue
        assert "`" not in message, message
        assert not misnamed(message, key), message


def test_exceptions_are_classes_of_the_configuration():
    assert {*NEED_FILES, *EAGER} <= found().keys()


CHOICES = {"task": "sample", "data": "arrays", "sde": "ve", "sampler": "ode", "model": "mlp"}
IMPUTE = ["task=impute", "operator=half"]


@pytest.mark.parametrize(
    "words, key",
    [
        (["sampler.steps=0"], "sampler.steps"),
        (["sampler=unipc", "sampler.predictor.order=7"], "sampler.predictor.order"),
        (["task.tempering.temperature=0"], "task.tempering.temperature"),
        (["task=likelihood", "likelihood.vectors.rtol=0"], "likelihood.vectors.rtol"),
        ([*IMPUTE, "operator.noise=-1"], "operator.noise"),
        ([*IMPUTE, "conditioner=smcdiff", "conditioner.particles=0"], "conditioner.particles"),
        (["training.vectors.steps=0"], "training.vectors.steps"),
        (["model.vectors.depth=0"], "model.vectors.depth"),
        (["task=evaluate", "count=3"], "count"),
        (["task=evaluate", "task.count=3"], "task.count"),
    ],
)
def test_messages_name_the_key_that_a_user_types(tmp_path, words, key):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((40, 2)))
    cfg = compose("data=arrays", f"data.path={tmp_path}/a.npy", *words) | {"store": str(tmp_path / "store")}
    with pytest.raises(ValueError) as caught:
        run(cfg, CHOICES, tmp_path / "run")
    message, last = str(caught.value), key.rpartition(".")[2]
    places = re.findall(rf"[\w./]*\b{last}=", message)
    assert places and set(places) == {f"{key}="} and "`" not in message, message
    assert not list(tmp_path.glob("store/*/step-*")), "nothing was trained before the mistake was found"
