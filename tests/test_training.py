"""Tests of the loss, the moving average, the batches and the training loop, which can be stopped and resumed."""

import math
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from scoresde.conf import schema
from scoresde.data import Data, Digits, Mixture
from scoresde.models import EDM, MLP, Oracle, ScoreModel
from scoresde.sde_lib import VE, VP, SubVP, Toy
from scoresde.training import EMA, DenoisingScoreMatching, Trainer, levels
from scoresde.training.speed import Reading
from scoresde.training.trainer import Batches, Run

SDES = [VE(), VP(), SubVP(), Toy()]


def planar(count: int = 50) -> Data:
    generator = torch.Generator().manual_seed(1)
    return Data(
        torch.randn(count, 2, generator=generator), torch.randn(20, 2, generator=generator), 0.0, 1.0, shuffle=False
    )


def network(sde=None, **keys) -> ScoreModel:
    torch.manual_seed(0)
    return ScoreModel(sde or VE(), MLP((2,), width=8, depth=2, fourier=4, dropout=0.2, **keys), EDM(1.0))


def trainer(**keys) -> Trainer:
    return Trainer(DenoisingScoreMatching(), **{"steps": 12, "batch": 16, "warmup": 3, "evaluate": 3, **keys})


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


# The loss


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_likelihood_weighting_is_g_squared_integrated_over_time(sde):
    """2 * (range of lambda) * loss = int g^2 ||s + z/sigma||^2 dt / D, for a score with a residual in closed form."""
    s_d = 0.5

    def wrong_score(x, t):  # the score of N(0, 2 s_d^2): a residual that is not zero at any time
        return -x / (2 * (sde.alpha(t) * s_d).square() + sde.sigma(t).square())[:, None]

    loss = DenoisingScoreMatching(levels.LogSNR())
    torch.manual_seed(0)
    estimate = loss(sde, wrong_score, s_d * torch.randn(200_000, 2, dtype=torch.float64)).mean()
    ends = sde.half_log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64))

    # The residual's expectation in closed form, E (sigma s + z)^2 with s = -x/v, integrated by the trapezoid rule in
    # log t.
    t = torch.logspace(math.log10(sde.eps), math.log10(sde.T), 200_001, dtype=torch.float64)
    a, sigma, g = sde.alpha(t), sde.sigma(t), sde.g(t)
    v = 2 * (a * s_d).square() + sigma.square()
    residual = (sigma * a * s_d / v).square() + (1 - sigma.square() / v).square()
    integral = torch.trapezoid(g.square() / sigma.square() * residual, t)
    assert float(2 * (ends[1] - ends[0]) * estimate) == pytest.approx(float(integral), rel=0.01)


# The moving average


def test_ema_is_the_recursion():
    model = nn.Linear(2, 1)
    ema, by_hand = EMA(model, 0.9), model.weight.detach().clone()
    for n in range(30):
        with torch.no_grad():
            model.weight += n
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * model.weight.detach()
    assert torch.allclose(ema.model.weight, by_hand, rtol=1e-5)
    assert not torch.equal(ema.model.weight, model.weight) and not ema.model.weight.requires_grad


# Batches


def test_every_epoch_shows_each_example_once_for_any_batch_size():
    data = Data(torch.arange(10.0)[:, None], torch.zeros(2, 1), 0.0, 1.0, shuffle=False)
    for size in (3, 10, 25):
        batches = Batches(data, size, seed=5, device=torch.device("cpu"))
        stream = torch.cat([batches(step) for step in range(20)])[: 10 * (20 * size // 10), 0]
        epochs = stream.reshape(-1, 10).long()
        assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
        assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1, "each epoch has an order of its own"


def test_integers_are_dequantised_afresh_within_their_level():
    data = Digits()
    data.train = data.train[:1].repeat(32, 1, 1, 1)  # so that every batch holds the same integers
    batches = Batches(data, 32, seed=0, device=torch.device("cpu"))
    first, later = data.decode(batches(0)), data.decode(batches(1))
    assert torch.equal(first, data.decode(batches(0))) and not torch.equal(first, later)
    assert torch.equal(first.floor(), later.floor()) and torch.equal(first.floor(), first.floor().clamp(0, 16))


# The loop


@pytest.mark.parametrize("optimiser, rate", [("adam", 3e-3), ("muon", 1e-2)])
def test_it_learns_the_score_of_a_gaussian(optimiser, rate):
    data = Mixture(weights=[1.0], means=[[1.0, -1.0]], stds=[0.5], count=4000, test_count=200)
    sde = VP()
    torch.manual_seed(0)
    model = ScoreModel(
        sde, MLP((2,), width=32, depth=2, fourier=0), EDM(0.5)
    )  # the wrong sigma_data: there is something to learn
    events = []
    fitted = Trainer(DenoisingScoreMatching(), steps=400, batch=256, rate=rate, warmup=20, optimiser=optimiser).fit(
        sde, model, data, record=events.append
    )
    oracle = Oracle(sde, data.components())
    x, t = torch.randn(500, 2), torch.rand(500) * 0.9 + 0.1

    def error(score):
        return float(((score(x, t).detach() - oracle(x, t)) * sde.sigma(t)[:, None]).square().mean())

    torch.manual_seed(0)
    untrained = ScoreModel(sde, MLP((2,), width=32, depth=2, fourier=0), EDM(0.5))
    assert error(fitted) < 0.1 * error(untrained)
    held_out = [event["held_out_loss"] for event in events if "held_out_loss" in event]
    assert len(held_out) == 20 and held_out[-1] < held_out[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    runs = []
    for seed in (3, 3, 4):
        t = trainer(seed=seed)
        with t.seeded():
            model = network_from_here()
        runs.append(weights(t.fit(VE(), model, planar())))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def network_from_here() -> ScoreModel:
    return ScoreModel(VE(), MLP((2,), width=8, depth=2, fourier=4, dropout=0.2), EDM(1.0))


def test_measuring_the_held_out_loss_changes_nothing():
    runs = []
    for evaluate in (0, 5):
        torch.manual_seed(0)
        runs.append(weights(trainer(evaluate=evaluate).fit(VE(), network(), planar())))
    assert torch.equal(*runs)


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stop_and_resume_is_bitwise_the_uninterrupted_run(tmp_path, stop):
    """Mid-epoch (50 examples, batches of 16), with dropout, at any step: weights, average and loss log are equal."""

    def run(folder, interrupt):
        events = []

        def record(event):
            events.append(event)
            if interrupt and event["step"] == interrupt and "loss" in event:
                os.kill(os.getpid(), signal.SIGINT)

        torch.manual_seed(7)
        model = network()
        torch.manual_seed(8)
        try:
            return weights(trainer().fit(VE(), model, planar(), folder, record)), weights(model), events
        except KeyboardInterrupt:
            torch.manual_seed(99)  # a new process has another state of the generator
            resumed = run(folder, None)
            return *resumed[:2], events + resumed[2]

    straight, broken = run(tmp_path / "a", None), run(tmp_path / "b", stop)
    assert torch.equal(straight[0], broken[0]) and torch.equal(straight[1], broken[1])
    losses = [{e["step"]: e["loss"] for e in events if "gradient" in e} for events in (straight[2], broken[2])]
    gradients = [{e["step"]: e["gradient"] for e in events if "gradient" in e} for events in (straight[2], broken[2])]
    assert gradients[0] == gradients[1] and losses[0] == losses[1]


def test_sigterm_saves_and_leaves_with_its_exit_code(tmp_path):
    def record(event):
        if event["step"] == 4 and "loss" in event:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        trainer().fit(VE(), network(), planar(), tmp_path, record)
    assert left.value.code == 143
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000004"]
    assert signal.getsignal(signal.SIGTERM) is before, "the process's own handler is back"


def test_training_works_outside_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(trainer().fit(VE(), network(), planar())))
    thread.start()
    thread.join()
    assert len(done) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, bad):
    torch.manual_seed(0)
    model, data = network(), planar(16)
    data.train[3] = bad
    before = weights(model)
    with pytest.raises(FloatingPointError, match="training stopped before update 1.*training.rate"):
        trainer().fit(VE(), model, data, tmp_path)
    assert torch.equal(before, weights(model))


def test_a_gradient_that_is_not_finite_stops_too_and_the_last_checkpoint_stays(tmp_path):
    class Trap(nn.Module):
        """A module with a finite value and an infinite gradient, from a square root at zero."""

        def __init__(self):
            super().__init__()
            self.scale, self.calls = nn.Parameter(torch.ones(1)), 0

        def forward(self, x, t):
            self.calls += self.training
            return (
                self.scale * x + (self.scale - self.scale.detach()).abs().sqrt() if self.calls > 6 else self.scale * x
            )

    with pytest.raises(FloatingPointError, match="before update 7.*gradient's norm nan.*last good checkpoint"):
        trainer(save_seconds=1e-9, evaluate=0).fit(VE(), Trap(), planar(), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*"))[-1] == "step-00000006"


def test_the_rate_warms_up_linearly_and_falls_to_zero():
    t = Trainer(DenoisingScoreMatching(), steps=100, rate=2.0, warmup=9)
    assert t.rate_at(0) == pytest.approx(0.2) and t.rate_at(4) == pytest.approx(
        2 * 0.5 * 0.5 * (1 + math.cos(math.pi * 0.04))
    )
    assert t.rate_at(50) == pytest.approx(1.0) and t.rate_at(99) < 1e-3
    constant = Trainer(DenoisingScoreMatching(), steps=100, rate=2.0, warmup=0, schedule="constant")
    assert {constant.rate_at(step) for step in range(100)} == {2.0}


def test_gradients_are_clipped_to_the_given_norm():
    model = nn.Linear(2, 2)

    def score(x, t):
        return 1e6 * model(x)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, t):
            return score(x, t)

    before, seen = weights(model), []
    Trainer(DenoisingScoreMatching(), steps=1, batch=8, rate=0.1, warmup=0, clip=1e-20, evaluate=0).fit(
        VE(), Wrapped(), planar(), record=seen.append
    )
    # Adam's step is rate * g / (|g| + 1e-8): a gradient clipped far below 1e-8 hardly moves the weights.
    assert seen[0]["gradient"] > 1 and (weights(model) - before).abs().max() < 1e-9


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"steps": 0}, "`steps`=0 must be at least 1"),
        ({"batch": 0}, "`batch`=0"),
        ({"rate": 0.0}, "`rate`=0.0 must be positive and finite"),
        ({"ema": 1.0}, r"`ema`=1.0 must lie in \[0, 1\)"),
        ({"schedule": "step"}, "`schedule`=step must be cosine or constant"),
    ],
)
def test_bad_settings_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Trainer(DenoisingScoreMatching(), **keys)


def test_checkpoints_come_with_time_and_not_with_steps(tmp_path):
    started = time.monotonic()
    trainer(save_seconds=3600.0).fit(VE(), network(), planar(), tmp_path)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000012"] and time.monotonic() - started < 60


LOSS = {"_target_": "training.DenoisingScoreMatching"}


@pytest.mark.parametrize(
    "target, keys, key",
    [
        *(
            ("Trainer", {"loss": LOSS, name: value}, name)
            for name, value in [
                ("steps", 10**10),
                ("batch", 0),
                ("warmup", -1),
                ("rate", math.inf),
                ("clip", 0.0),
                ("save_seconds", 0.0),
                ("betas", [0.9, 1.0]),
                ("optimiser", "sgd"),
                ("momentum", 1.0),
                ("ema", 1.0),
                ("drop", 1.0),
                ("schedule", "step"),
                ("dequantise", "some"),
                ("precision", "half"),
                ("accumulate", 257),
                ("evaluate", -1),
                ("seed", 2**63),
            ]
        ),
        ("BinaryLoss", {"weighting": "none"}, "weighting"),
        ("ImplicitScoreMatching", {"chunk": 0}, "chunk"),
        ("SlicedScoreMatching", {"directions": 0}, "directions"),
        ("SlicedScoreMatching", {"law": "cauchy"}, "law"),
        ("levels.LogNormal", {"std": 0.0}, "std"),
        ("levels.LogNormal", {"mean": 21.0}, "mean"),
        ("levels.LogNormal", {"sigma_data": 0.0}, "sigma_data"),
        ("levels.Blend", {"share": 1.0}, "share"),
        ("levels.Blend", {"std": 0.0}, "std"),
        ("levels.Ladder", {"count": 1}, "count"),
        ("levels.Chain", {"count": 1}, "count"),
        ("levels.One", {"noise_to_signal": 0.0}, "noise_to_signal"),
    ],
)
def test_a_refusal_names_the_key_in_full(target, keys, key):
    with pytest.raises(ValueError, match=rf"a\.b\.{key}\b") as caught:
        schema.build({"_target_": f"training.{target}", **keys}, "a.b")
    assert "`" not in str(caught.value)


class Late:
    """Readings of which the last is still on its way."""

    def __init__(self, *readings: Reading):
        self.left = list(readings)

    def rest(self) -> list[Reading]:
        return [self.left.pop(0) for _ in list(self.left)]


class State:
    """A state that is never captured."""

    snapshots = frozenset()


def test_no_average_is_kept_before_its_loss_is_known_to_be_finite(tmp_path):
    run = Run(Trainer(DenoisingScoreMatching()), State(), None, Late(Reading(2, math.nan, 1.0)), tmp_path, None, None)
    with pytest.raises(FloatingPointError, match="stopped before update 3"):
        run.keep_averages(3, {3})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_due_once_in_save_seconds(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("scoresde.training.trainer.time.monotonic", lambda: clock[0])
    run = Run(Trainer(DenoisingScoreMatching(), save_seconds=10), State(), None, Late(), None, None, None)
    due = []
    for now in (105, 111, 112, 120, 122):
        clock[0] = now
        due.append(run.is_due())
        if due[-1]:
            run.save(1)
    assert due == [False, True, False, False, True]
