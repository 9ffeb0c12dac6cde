"""Shared by the tests: the configuration as plain values, the objects that its yaml files name, and closed forms to
compare with.
"""

import copy
import math
import os
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

import scoresde.tasks.parts.likelihood_pictures
from scoresde.conf import schema
from scoresde.tasks import Given, Job
from scoresde.tasks.parts.glossary import lookup

# Two pytest workers with two threads each would wait for one another; the processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"vectors": (2,), "images": (3, 8, 6)}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def choices(group: str) -> list[str]:
    """The yaml files of a configuration group: a new one is tested by existing."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@cache
def written(group: str, name: str) -> dict:
    """Returns a yaml as it is written, for what the names of tests depend on: to compose it takes a hundred times as
    long, before the first test runs.
    """
    return yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())


def kind(group: str, name: str) -> type:
    """Returns the class that a yaml names."""
    return schema.locate(written(group, name)["_target_"], group)


SDES = [name for name in choices("sde") if name != "binary"]  # a chain of bits is no SDE, and has tests of its own
# (The published Langevin step reads the batch's mean norms: no sample has a law of its own under it. Plain Langevin
# dynamics does not lead from noise to data: it has tests of its own.)
SAMPLERS = [name for name in choices("sampler") if name not in ("pc_published", "langevin")]
PREDICTORS = choices("sampler/predictor")
CORRECTORS = [name for name in choices("sampler/corrector") if name != "langevin_batch_norms"]
GRIDS = choices("sampler/grid")
PARAMETERISATIONS = [name for name in choices("parameterisation") if name != "bits"]  # of which no score is made


def refuse_unknown_metrics(call: Callable, tasks: tuple[str, ...]) -> Callable:
    """Returns the ``__call__`` of a task, with an assertion that the glossary has the metrics that it returns.

    Arguments:
        tasks: the names of the task, as ``task=`` takes them.
    """

    @wraps(call)
    def checked(self: Any, job: Job) -> dict[str, Any]:
        found = call(self, job)
        lacking = [key for key in {**found, **job.data_metrics} if not any(lookup(key, task) for task in tasks)]
        assert not lacking, f"tasks/parts/glossary.py lacks {lacking} of task={tasks[0]}"
        return found

    return checked


@pytest.fixture(autouse=True, scope="session")
def metrics_are_in_the_glossary() -> Iterator[None]:
    """Looks up every metric that a task of ours returns in any test; those of a test's own tasks are let through."""
    names = {kind("task", name): [] for name in choices("task")}
    for name in choices("task"):
        names[kind("task", name)].append(name)
    with pytest.MonkeyPatch.context() as patch:
        for task, own in names.items():
            patch.setattr(task, "__call__", refuse_unknown_metrics(task.__call__, tuple(own)))
        yield


@cache
def composed(words: tuple[str, ...]) -> DictConfig:
    """Returns what Hydra composes of a command line."""
    with hydra.initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", overrides=list(words))


@cache
def is_value(word: str) -> bool:
    """Returns whether a word of a command line is KEY=VALUE, and not a choice of a group, a deletion or an addition."""
    key = word.split("=")[0]
    return not set(key) & set("/@+~") and not (ROOT / "conf" / key).is_dir()


@cache
def value_of(word: str) -> tuple[str, Any]:
    """Returns the key and the value of a word, as Hydra reads them."""
    (override,) = OverridesParser.create().parse_overrides([word])
    if override.is_sweep_override():
        raise HydraException(f"{word} is a sweep")
    return override.key_or_group, override.value()


def compose(*overrides: str) -> dict:
    """The configuration that a command line names, as plain values.

    Composing is half of a small run's time. So Hydra composes each set of choices once, and the values are put in
    afterwards, as it does itself; words that this cannot read go to Hydra as a whole, and so its messages are kept. The
    store, which no other key refers to, is every test's own.
    """
    own = [word.removeprefix("store=") for word in overrides if word.startswith("store=")]
    words = tuple(word for word in overrides if not word.startswith("store="))
    choices = tuple(word for word in words if not is_value(word))
    try:
        if any(word[0] in "+~" for word in choices):
            raise HydraException("the order of these words matters")
        cfg = copy.deepcopy(composed(choices))
        for word in words:
            if is_value(word):
                OmegaConf.update(cfg, *value_of(word), merge=True)
    except (HydraException, OmegaConfBaseException):
        cfg = composed(words)
    return OmegaConf.to_container(cfg, resolve=True) | ({"store": own[-1]} if own else {})


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Pictures are composed and not painted, which takes most of a small run's time, but where a test asks for it:
    each is painted in tests/test_figures.py, and in the battery of all tasks.
    """
    if "painted" not in request.keywords:
        monkeypatch.setattr(Figure, "savefig", lambda self, path, **keys: Path(path).write_bytes(b""))
        monkeypatch.setattr(scoresde.tasks.parts.likelihood_pictures, "CELLS", 4)


def job_of(sde, score, data, record, **found) -> Job:
    """A job with networks that are at hand, for a task that is called by itself."""
    return Job(sde, data, record, Given(score, **found))


def in_turn(*lists: list) -> list[tuple]:
    """Tuples in which each value of the longest list stands with one of every other, these taken in turn; so that what
    is asked of a pair is asked of each, and not of every combination.
    """
    return [tuple(each[i % len(each)] for each in lists) for i in range(max(map(len, lists)))]


def standard(shape: tuple[int, ...]) -> dict:
    """Returns the values of keys that are ``auto``, as data N(0, I) would give them."""
    dim = math.prod(shape)
    components = (torch.tensor([1.0]), torch.zeros(1, dim), torch.tensor([1.0]))
    one = torch.ones(dim, dtype=torch.float64)
    values = {"shape": list(shape), "components": components, "moments": (0 * one, one, one.diag(), 0.0)}
    reference = torch.randn(100, dim, generator=torch.Generator().manual_seed(0))  # and no draw of the tests' own
    values |= {"reference": reference, "sigma_max": 10.0, "labels": None}
    values |= {"condition": 0, "evidence": None, "classes": 3, "drop": 0.0, "pixel_unit": 1.0, "last": "flow"}
    values |= {"bins": None, "observation": {"_target_": "latent.Gaussian", "std": None}}
    return values | {"sigma_data": 1.0, "levels.count": 1000, "batch": 64, "device": "cpu"}


def make(key: str, *overrides: str, shape: tuple[int, ...] = (2,)):
    """The object at a dotted key of the configuration, what waits for the data filled in for data N(0, I)."""
    node = schema.settle(compose(*overrides), shape, standard(shape))
    for part in key.split("."):
        node = node[part]
    return schema.build(schema.canonical(node), key)


@cache
def make_sde(name: str):
    return make("sde", f"sde={name}")


def make_sampler(name: str, **keys):
    """A sampler's yaml with some of its keys changed, those that it has."""
    has = compose(f"sampler={name}")["sampler"]
    return make("sampler", f"sampler={name}", *(f"sampler.{key}={value}" for key, value in keys.items() if key in has))


@pytest.fixture(params=SDES)
def sde(request):
    """Every SDE that has a yaml."""
    return make_sde(request.param)


@pytest.fixture(params=SHAPES, scope="module")
def shape(request) -> tuple[int, ...]:
    return SHAPES[request.param]


@pytest.fixture(params=DTYPES, scope="module")
def dtype(request) -> torch.dtype:
    return DTYPES[request.param]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


class GaussianScore:
    """The exact score and density of N(m, s^2 I) under an SDE: p_t = N(alpha m, (alpha^2 s^2 + sigma^2) I), written
    from the definition.
    """

    def __init__(self, sde, mean: float = 0.0, std: float = 1.0):
        self.sde, self.mean, self.std = sde, mean, std

    def under(self, sde, other) -> "GaussianScore":
        return GaussianScore(other, self.mean, self.std)

    def moments(self, t) -> tuple[Tensor, Tensor]:
        """The mean and the variance of every coordinate at t."""
        t = torch.as_tensor(t, dtype=torch.float64) if not isinstance(t, Tensor) else t
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        mean, variance = (per_sample(v, x).to(x.dtype) for v in self.moments(t))
        return (mean - x) / variance

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        mean, variance = (per_sample(v, x).to(x.dtype) for v in self.moments(t))
        return torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).flatten(1).sum(1)


def mixture(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (3,), means (3, D) and stds (3,) of a mixture of unequal weights and widths that do not overlap, of about
    unit variance.
    """
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    if len(shape) == 1:
        means = torch.tensor([[-1.2, -0.6], [1.2, -0.4], [0.3, 1.4]], dtype=torch.float64)
    else:
        means = torch.tensor([-0.9, 0.7, 1.6], dtype=torch.float64)[:, None].expand(3, math.prod(shape)).clone()
    return weights, means, torch.tensor([0.2, 0.12, 0.25], dtype=torch.float64)


def draw_mixture(components: tuple[Tensor, Tensor, Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
    """Points of the mixture, float64, shape (count, *shape)."""
    weights, means, stds = components
    k = torch.multinomial(weights, count, replacement=True)
    return (means[k] + stds[k, None] * torch.randn(count, means.shape[1], dtype=torch.float64)).reshape(count, *shape)
