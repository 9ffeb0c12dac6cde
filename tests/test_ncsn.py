"""Tests of NCSN's network and its ladder of noise levels."""

import math

import pytest
import torch

from scoresde.conf import assemble, compatibility, identity, schema
from scoresde.data import Data
from scoresde.models import EDM, EnergyGradient, RefineNet, ScoreModel
from scoresde.models.refinenet import WIDTH, InstanceNormPlus
from scoresde.sde_lib import VE
from scoresde.training import levels
from scoresde.training.levels import overlap

from .conftest import compose


def network(shape: tuple[int, ...], channels: int = 4) -> RefineNet:
    net = RefineNet(shape, channels).double()
    for name, parameter in net.named_parameters():
        if name.startswith("last"):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def test_instance_norm_plus_is_the_formula():
    """Computes the normalisation channel by channel from its definition (arXiv 1907.05600, appendix A)."""
    norm, noise = InstanceNormPlus(3).double(), torch.randn(2, WIDTH, dtype=torch.float64)
    x = 10 * torch.randn(2, 3, 4, 5, dtype=torch.float64) + torch.tensor([30.0, -20.0, 5.0])[:, None, None]
    found, terms = norm(x, noise), norm.terms(noise)
    for b in range(2):
        means = torch.stack([x[b, k].mean() for k in range(3)])
        m, v = means.mean(), means.std(correction=0)
        for k in range(3):
            gamma, beta, alpha = terms[b, k], terms[b, 3 + k], terms[b, 6 + k]
            by_hand = gamma * (x[b, k] - means[k]) / x[b, k].std(correction=0) + beta + alpha * (means[k] - m) / v
            torch.testing.assert_close(found[b, k], by_hand, rtol=1e-3, atol=1e-3)


def test_the_means_of_the_channels_are_seen():
    """Unlike instance normalisation it distinguishes x from x plus a constant in each channel."""
    norm, x, noise = InstanceNormPlus(3), torch.randn(1, 3, 4, 4), torch.zeros(1, WIDTH)
    shifted = x + torch.tensor([1.0, -2.0, 0.5])[:, None, None]
    assert not torch.allclose(norm(x, noise), norm(shifted, noise), atol=0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6), (2, 7, 5), (1, 3, 2)], ids=str)
def test_any_shape_and_no_batch_mates(shape):
    """The output of an image depends only on the image and its noise level, at any size."""
    net, x, c = network(shape), torch.randn(3, *shape, dtype=torch.float64), torch.tensor([-1.0, 0.0, 0.5]).double()
    together = net(x, c)
    assert together.shape == x.shape
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], c[i : i + 1])[0], together[i], rtol=1e-9, atol=1e-10)
    one = net(x, c[:1].expand(3))  # one level for the whole batch is embedded once
    torch.testing.assert_close(one, net(x, c[:1].repeat(3)), rtol=1e-9, atol=1e-10)
    assert not torch.allclose(together[0], one[1])


def test_every_weight_has_a_gradient_and_sees_the_whole_picture():
    net, x = network((1, 9, 9)), torch.randn(2, 1, 9, 9, dtype=torch.float64, requires_grad=True)
    out = net(x, torch.tensor([0.1, 0.2]).double())
    (slope,) = torch.autograd.grad(out[0, 0, 0, 0], x, retain_graph=True)
    assert bool((slope[0] != 0).all()) and bool((slope[1] == 0).all())
    out.square().sum().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in net.parameters())


def test_it_can_be_an_energy():
    """Second derivatives exist: the energy's Jacobian is symmetric."""
    score = ScoreModel(VE(), EnergyGradient(network((1, 3, 2))), EDM(1.0)).double()
    t = torch.tensor([0.4]).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: score(x.reshape(1, 1, 3, 2), t).flatten(), torch.randn(6, dtype=torch.float64)
    )
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-7, atol=1e-9)
    assert float(jacobian.abs().max()) > 1e-3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="model=ncsn takes images of shape"):
        RefineNet((2,))
    with pytest.raises(ValueError, match="`channels`=0 must be at least 1"):
        RefineNet((1, 8, 8), 0)


# The ladder


def by_simulation(ratio: float, dim: int) -> float:
    """Returns how often the norm of noise of std 1 lies within 3 stds of the mean norm of noise of std ``ratio``."""
    norms = torch.randn(50_000, dim).norm(dim=1)
    return float(((norms - math.sqrt(dim) * ratio).abs() < 3 * ratio / math.sqrt(2)).double().mean())


@pytest.mark.parametrize("ratio, dim", [(1.05, 1000), (1.2, 200), (1.36, 64), (1.02, 3000)])
def test_overlap_is_what_noise_shows(ratio, dim):
    assert overlap(ratio, dim) == pytest.approx(by_simulation(ratio, dim), abs=0.03)


def test_the_published_ladders():
    """CIFAR-10's 232 levels overlap by slightly more than 1/2, the first ladder of 10 not at all (arXiv 2006.09011)."""
    assert 0.5 < overlap(5000 ** (1 / 231), 3072) < 0.6
    assert overlap(100 ** (1 / 9), 3072) < 1e-12
    said = levels.Ladder(232).describe(VE(sigma_min=0.01, sigma_max=50.0), 3072)
    assert "232 noise levels, sigma/alpha from 50 to 0.01, a factor 1.038 apart" in said and "overlap by 0.57" in said
    assert levels.LogSNR().describe(VE(), 2) is None


def test_the_count_that_is_enough_is_the_least():
    said = levels.Ladder(10).describe(VE(sigma_max=20.0), 64)
    enough = int(said.split("count=")[1].split(" ")[0])
    ratios = [(20.0 / 0.01) ** (1 / (count - 1)) for count in (enough - 1, enough)]
    assert overlap(ratios[0], 64) < 0.5 <= overlap(ratios[1], 64)


def square(side: float) -> Data:
    corners = torch.tensor([[0.0, 0.0], [side, 0.0], [0.0, side], [side, side]])
    return Data(corners.repeat(50, 1), corners, 0.0, 2.0, shuffle=False)


def test_the_largest_distance_is_the_diagonal():
    assert square(4.0).largest_distance() == pytest.approx(2 * math.sqrt(2))


def test_sigma_max_is_resolved_everywhere_and_enters_the_identity():
    data = square(4.0)
    cfg = assemble.settle(compose("sde=ve", "sde.sigma_max=auto", "data=moons"), data, "cpu")
    assert cfg["sde"]["sigma_max"] == 2.828
    assert identity.identity_of(cfg, data)["sde"]["sigma_max"] == 2.828


def test_the_experiment_is_complete():
    cfg = compose("experiment=ncsn", "data=digits")
    assert cfg["sampler"]["levels"] == cfg["training"]["loss"]["levels"]["count"] == 24
    assert cfg["sde"]["sigma_max"] == "auto" and cfg["model"]["_target_"] == "models.RefineNet"


def test_one_level_is_warned_of(caplog):
    class Stub:
        loss = None

    def said(word: str, *more: str) -> str:
        caplog.clear()
        cfg = compose("data=moons", f"training/loss={word}", *more)
        Stub.loss = type("Loss", (), {"levels": levels.One() if word == "one_level" else levels.LogSNR()})
        task = schema.build(assemble.settle(cfg, square(4.0), "cpu")["task"], "task")
        compatibility.levels(task, Stub, VE(), square(4.0))
        return caplog.text

    assert "type sampler=langevin" in said("one_level")
    assert said("one_level", "sampler=langevin") == said("likelihood") == said("one_level", "task=train") == ""
