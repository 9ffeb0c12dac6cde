"""Tests of Muon: its step, the weights that it moves, and trainings that are stopped and resumed."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from scoresde.conf import identity
from scoresde.data import Data
from scoresde.models import EDM, MLP, ScoreModel, UNet
from scoresde.sde_lib import VE
from scoresde.training import DenoisingScoreMatching, Trainer
from scoresde.training.batches import Batches
from scoresde.training.muon import COEFFICIENTS, STEPS, Muon, exact_products, is_matrix, orthogonal
from scoresde.training.optimiser import optimiser_of

from .conftest import compose, make

CPU = torch.device("cpu")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def by_singular_values(u: torch.Tensor) -> torch.Tensor:
    """Returns p(p(...)) of the singular values over their root sum of squares, in float64."""
    a, b, c = COEFFICIENTS
    left, s, right = torch.linalg.svd(u.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(STEPS):
        s = a * s + b * s**3 + c * s**5
    return left * s @ right


@pytest.mark.parametrize("rows, columns", [(16, 16), (16, 144), (144, 16), (96, 864), (40, 33)])
@pytest.mark.parametrize("decay", [0.0, 3.0, 6.0], ids=["even", "1e-3", "1e-6"])
def test_the_polynomial_acts_on_singular_values(rows, columns, decay):
    """Matrices with singular values of one magnitude, or falling by 3 and 6 decades, whose squares float32 loses."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(rows, columns, generator=generator)
    left, _, right = torch.linalg.svd(u, full_matrices=False)
    u = left * torch.logspace(0, -decay, min(rows, columns)) @ right
    found = orthogonal(torch.stack([u, -4 * u]))
    error = torch.linalg.matrix_norm(found[0].double() - by_singular_values(u), 2)
    assert float(error) < (1e-5 if decay == 0 else 3e-3)
    assert torch.allclose(found[1], -found[0], atol=1e-6), "the length of U is nothing"
    if decay == 0:
        s = torch.linalg.svdvals(found[0])
        assert 0.65 < float(s.min()) <= float(s.max()) < 1.25


def test_a_matrix_of_zeros_is_not_moved():
    assert torch.equal(orthogonal(torch.zeros(1, 16, 20)), torch.zeros(1, 16, 20))


@pytest.mark.parametrize("size", [1e-8, 1e-15, 1e-24, 1e-40])
def test_a_step_shrinks_with_a_gradient_that_is_all_but_gone(size):
    found = orthogonal(size * torch.randn(1, 16, 20, generator=torch.Generator().manual_seed(0)))
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) < (0.02 if size < 1e-10 else 1.0)


def test_weights_come_to_rest_once_the_gradient_is_zero():
    w = nn.Parameter(torch.zeros(16, 20))
    muon = Muon([w], lr=1e-3)
    w.grad = torch.randn(16, 20, generator=torch.Generator().manual_seed(0))
    muon.step()
    w.grad = torch.zeros(16, 20)
    for _ in range(800):
        muon.step()
    rest = w.detach().clone()
    for _ in range(2000):
        muon.step()
    assert bool(w.isfinite().all()) and torch.allclose(w, rest, atol=1e-5)


def test_weights_without_a_gradient_stay():
    net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    net[0].requires_grad_(False)
    before = weights(net).clone()
    both = optimiser_of(net, "muon", 1e-2, (0.9, 0.99), 0.95, True)
    both.step()
    assert torch.equal(weights(net), before)
    net(torch.ones(2, 16)).sum().backward()
    both.step()
    assert torch.equal(weights(net[0]), before[: 16 * 17]) and not torch.equal(weights(net[1]), before[16 * 17 :])


def test_an_update_that_is_told_to_be_broken_changes_nothing():
    w = nn.Parameter(torch.ones(16, 20))
    muon = Muon([w], lr=0.1)
    for broken, gradient in ((0.0, 1.0), (1.0, math.nan), (1.0, 1.0)):
        before, moment = w.detach().clone(), muon.state[w].get("momentum", torch.zeros(1)).clone()
        muon.found_inf, w.grad = torch.tensor(broken), torch.full((16, 20), gradient)
        muon.step()
        assert torch.equal(w, before) == bool(broken)
        assert torch.equal(muon.state[w]["momentum"], moment) == bool(broken)


def test_half_precision_weights_are_orthogonalised_in_float32():
    u = torch.randn(16, 20, generator=torch.Generator().manual_seed(0))
    w = nn.Parameter(torch.zeros(16, 20, dtype=torch.bfloat16))
    w.grad = u.bfloat16()
    Muon([w], lr=1.0, momentum=0.0).step()
    expected = (-0.2 * math.sqrt(20) * by_singular_values(w.grad.float())).bfloat16()
    assert torch.allclose(w, expected, rtol=0.01, atol=1e-5)


def test_products_are_exact_within_and_as_they_were_after():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with exact_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_it_is_torchs_muon_where_torch_has_one():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon is of torch 2.9 and later")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(24, 60, generator=generator)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([ours], lr=0.01, momentum=0.9)
    other = torch.optim.Muon([theirs], lr=0.01, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(24, 60, generator=generator)
        before = ours.detach().clone()
        mine.step()
        other.step()
        step = (ours.detach() - before).square().mean().sqrt()
        assert float(step) == pytest.approx(0.2 * 0.01, rel=0.25), "of Adam's size"
    moved = (ours.detach() - start).norm()
    assert float((ours - theirs).detach().norm() / moved) < 0.02  # torch rounds to bfloat16
    assert float(moved) > 0.02


def test_a_convolution_is_its_matrix_and_equals_move_together():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, 16, 3, 3, 3, generator=generator)
    together = [nn.Parameter(torch.zeros(16, 3, 3, 3)) for _ in range(2)]
    alone = [nn.Parameter(torch.zeros(16, 27)) for _ in range(2)]
    for p, q, g in zip(together, alone, gradients, strict=True):
        p.grad, q.grad = g.to(memory_format=torch.channels_last), g.reshape(16, 27)
    for each in (Muon(together, lr=0.1), Muon(alone[:1], lr=0.1), Muon(alone[1:], lr=0.1)):
        each.step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p.reshape(16, 27), q, atol=1e-6) and float(q.detach().abs().max()) > 0


def test_momentum_is_nesterovs():
    w, generator = nn.Parameter(torch.zeros(16, 20)), torch.Generator().manual_seed(0)
    muon, moment = Muon([w], lr=0.5, momentum=0.8), torch.zeros(16, 20)
    for rate in (0.5, 0.25, 0.1):  # as a schedule sets it
        w.grad, before = torch.randn(16, 20, generator=generator), w.detach().clone()
        muon.param_groups[0]["lr"] = rate
        muon.step()
        moment = 0.8 * moment + 0.2 * w.grad
        u = 0.8 * moment + 0.2 * w.grad
        expected = -0.2 * rate * math.sqrt(20) * by_singular_values(u)
        assert torch.allclose((w - before).double(), expected, atol=1e-4)
        assert torch.allclose(muon.state[w]["momentum"], moment, atol=1e-6)


def test_which_weights_are_its_own():
    net = UNet((1, 8, 8), channels=[16, 32], attention=[4])
    muon = {name for name, w in net.named_parameters() if is_matrix(w)}
    assert "middle.0.0.conv_1.weight" in muon and "middle.0.1.qkv.weight" in muon
    assert not any(name.endswith("bias") or "norm" in name for name in muon)
    assert not {"first.weight", "last.2.weight"} & muon, "one channel in, one out"
    assert is_matrix(torch.zeros(32, 3, 3, 3)) and not is_matrix(torch.zeros(32, 15, 1, 1))  # 27 and 15 are summed
    assert not is_matrix(torch.zeros(0, 20)) and not is_matrix(torch.zeros(400)) and not is_matrix(torch.zeros(()))
    split = optimiser_of(net, "muon", 1e-3, (0.9, 0.99), 0.95, True)
    numbers = [sum(len(group["params"]) for group in part.param_groups) for part in split.parts]
    assert numbers == [len(list(net.parameters())) - len(muon), len(muon)]
    assert [type(part).__name__ for part in optimiser_of(net, "adam", 1e-3, (0.9, 0.99), 0.95, True).parts] == ["Adam"]
    for alone, kind in ((nn.Linear(15, 40), "Adam"), (nn.Linear(16, 16, bias=False), "Muon")):
        assert [type(p).__name__ for p in optimiser_of(alone, "muon", 1e-3, (0.9, 0.99), 0.95, True).parts] == [kind]


# The training


def network() -> ScoreModel:
    torch.manual_seed(0)
    return ScoreModel(VE(), MLP((2,), width=20, depth=3, fourier=8, dropout=0.2), EDM(1.0))


def planar() -> Data:
    generator = torch.Generator().manual_seed(1)
    return Data(
        torch.randn(50, 2, generator=generator), torch.randn(20, 2, generator=generator), 0.0, 1.0, shuffle=False
    )


def fit(model, folder=None, record=lambda event: None, data=None, **keys):
    torch.manual_seed(8)
    keys = {"steps": 12, "batch": 16, "warmup": 3, "evaluate": 3, "optimiser": "muon", **keys}
    return Trainer(DenoisingScoreMatching(), **keys).fit(VE(), model, data or planar(), folder, record)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stop_and_resume_is_bitwise_the_uninterrupted_run(tmp_path, stop):
    def record(event):
        if event["step"] == stop and "gradient" in event:
            os.kill(os.getpid(), signal.SIGINT)

    straight, model = network(), network()
    whole = fit(straight, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fit(model, tmp_path / "b", record)
    resumed = fit(model := network(), tmp_path / "b")
    assert torch.equal(weights(whole), weights(resumed)) and torch.equal(weights(straight), weights(model))


def test_the_schedule_and_the_momentum_reach_it(monkeypatch):
    seen = []
    monkeypatch.setattr(Muon, "step", lambda self: seen.append([dict(g) for g in self.param_groups]))
    fit(network(), rate=0.5, momentum=0.7)
    trainer = Trainer(DenoisingScoreMatching(), steps=12, warmup=3, rate=0.5)
    assert [groups[0]["lr"] for groups in seen] == [trainer.rate_at(step) for step in range(12)]
    assert {groups[0]["momentum"] for groups in seen} == {0.7}


@pytest.mark.parametrize("first, then", [("adam", "muon"), ("muon", "adam")])
def test_a_folder_of_another_optimiser_is_refused(tmp_path, first, then):
    fit(network(), tmp_path, optimiser=first)
    with pytest.raises(ValueError, match="another training.optimiser"):
        fit(network(), tmp_path, optimiser=then, steps=14)


def test_an_update_that_is_not_finite_is_not_taken_though_it_is_read_late(tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.training.trainer.works_ahead", lambda device: True)
    straight = network()
    fit(straight, schedule="constant", evaluate=0, steps=1)
    data = planar()
    order = Batches(data, 16, 0, CPU)
    row = next(int(i) for i in order.rows(1) if i not in order.rows(0))
    data.train[row] = math.nan
    model = network()
    with pytest.raises(FloatingPointError, match="still those of update 1"):
        fit(model, data=data, schedule="constant", evaluate=0)
    assert torch.equal(weights(model), weights(straight)) and bool(weights(model).isfinite().all())


def test_a_network_is_named_by_its_optimiser_and_adam_by_none():
    data = make("data", "data=digits")

    def name(*words):
        return identity.identity_of(compose("data=digits", *words), data)["training"]

    plain = name()
    assert "optimiser" not in plain and "momentum" not in plain, "networks older than the keys keep their names"
    assert name("training.momentum=0.5") == plain
    muon = name("training.optimiser=muon")
    assert muon != plain and name("training.optimiser=muon", "training.momentum=0.5") not in (plain, muon)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"optimiser": "sgd"}, "`optimiser`=sgd must be adam or muon"),
        ({"momentum": 1.0}, r"`momentum`=1.0 must lie in \[0, 1\); type `momentum`=0.95"),
        ({"momentum": -0.1}, "`momentum`=-0.1 must lie in"),
    ],
)
def test_bad_keys_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Trainer(DenoisingScoreMatching(), **keys)
