"""An energy's own density: its gradient is the score, and its normaliser is found where it can be."""

import json
import math

import pytest
import torch
from torch import Tensor

from scoresde.cli import run
from scoresde.likelihood import EnergyDensity
from scoresde.likelihood.energy import log_density
from scoresde.models import MLP, EnergyGradient, Oracle, ScoreModel

from .conftest import PARAMETERISATIONS, SDES, SHAPES, compose, draw_mixture, in_turn, make, make_sde, mixture


@pytest.mark.parametrize("name", PARAMETERISATIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradient_of_the_log_density_is_the_score(sde, shape, name):
    net = make("model", "model=energy_mlp" if len(shape) == 1 else "model=energy_unet", shape=shape)
    score = ScoreModel(sde, net, make("parameterisation", f"parameterisation={name}")).double()
    for parameter in score.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(sde.eps, sde.T, 3, dtype=torch.float64)
    (slope,) = torch.autograd.grad(score.log_density(x, t).sum(), x)
    torch.testing.assert_close(slope, score(x, t).detach(), rtol=1e-9, atol=1e-9 * float(slope.abs().max()))


def test_a_network_without_an_energy_has_no_log_density(sde):
    score = ScoreModel(sde, MLP((2,)), make("parameterisation"))
    assert not hasattr(score, "log_density")
    with pytest.raises(ValueError, match="needs a network with an energy; type model=energy_mlp"):
        log_density(score, torch.randn(2, 2), torch.full((2,), sde.T))


@pytest.mark.parametrize("guidance, has", [(1.0, True), (0.0, True), (3.0, False)])
def test_a_guided_score_has_no_log_density(sde, guidance, has):
    """Guidance other than 0 and 1 is a line through two networks, and the score of no density."""
    score = ScoreModel(sde, EnergyGradient(MLP((2,), condition=3)), make("parameterisation"))
    score = score.given(torch.eye(3)[:1], guidance)
    assert hasattr(score, "log_density") == has
    if not has:
        with pytest.raises(ValueError, match="needs a network with an energy"):
            log_density(score, torch.randn(2, 2), torch.full((2,), sde.T))


class Shifted(torch.nn.Module):
    """The mixture's exact log-density plus a constant that is to be found."""

    def __init__(self, oracle: Oracle, by: float):
        super().__init__()
        self.oracle, self.by = oracle, by

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        return self.oracle.log_prob(x, t) + self.by


@pytest.mark.parametrize("name, shape", in_turn(SDES, [(1,), (2,), (1, 2, 2)]), ids=str)
def test_the_normaliser_is_found(name, shape):
    """log Z = 3.7 within four of its own standard errors, which are small; and log p is that of the mixture at eps."""
    sde, dim = make_sde(name), math.prod(shape)
    weights, means, stds = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0]), torch.tensor([0.4, 0.2])
    components = (weights, means[:, None].expand(2, dim).clone(), stds)
    oracle, data = Oracle(sde, components).double(), draw_mixture(components, 1000, shape)
    check, x = EnergyDensity(reference=data), data[:50]
    log_z, stderr, size = check.log_normaliser(sde, Shifted(oracle, 3.7), x)
    assert 0 < stderr < 0.03 and size > 1000 and abs(log_z - 3.7) < 4 * stderr
    found = check(sde, Shifted(oracle, 3.7), x)
    t = torch.full((50,), sde.eps, dtype=torch.float64)
    torch.testing.assert_close(found.model_log_prob, oracle.log_prob(x, t) + 3.7 - log_z, rtol=0, atol=1e-9)
    assert found.shared and torch.equal(found.stderr, torch.full((50,), stderr, dtype=torch.float64))


def test_in_many_dimensions_it_is_refused():
    shape = (3, 8, 6)
    oracle = Oracle(make("sde"), mixture(shape)).double()
    with pytest.raises(ValueError, match=r"cannot be estimated in 144 dimensions: the effective sample size"):
        EnergyDensity(draws=500, least=100, reference=draw_mixture(mixture(shape), 300, shape))(
            make("sde"), Shifted(oracle, 0.0), torch.randn(2, *shape, dtype=torch.float64)
        )


def test_from_the_command_line(tmp_path):
    """The exact density, normalised by importance sampling, beside the ODE's: one density, by two ways."""
    words = ["data=mixture", "data.count=2000", "model=oracle", "task=likelihood", "count=200"]
    words += ["task/crosscheck=energy", "task.crosscheck.draws=5000", f"store={tmp_path}/store"]
    choices = {"task": "likelihood", "data": "mixture", "sde": "ve", "sampler": "pc", "model": "oracle"}
    run(compose(*words, "likelihood.start=plain"), choices, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["crosscheck_stderr"] < 0.05 and abs(metrics["crosscheck_pull"]) < 4
    assert metrics["crosscheck_nll_nats"] == pytest.approx(metrics["nll_nats"], abs=0.2)
    with pytest.raises(ValueError, match="type likelihood.start=plain$"):
        run(compose(*words), choices, tmp_path / "again")
    small = ["model=mlp", "training.steps=2", "training.batch=8", "likelihood.start=plain"]
    with pytest.raises(ValueError, match="needs a network with an energy; type model=energy_mlp"):
        run(compose(*(word for word in words if "oracle" not in word), *small), choices, tmp_path / "mlp")


@pytest.mark.parametrize("keys, message", [({"draws": 10}, "^`draws`=10"), ({"least": 0.5}, "^`least`=0.5")])
def test_bad_values_name_the_key(keys, message):
    with pytest.raises(ValueError, match=message):
        EnergyDensity(**keys)
