"""Tests that options for speed do not change the result of a training: parts of a batch, late readings, memory layouts,
compilation and prefetched rows.
"""

import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import scoresde.training.speed
import scoresde.training.trainer
from scoresde.data import Conditional, Data, Digits
from scoresde.models import EDM, MLP, EnergyGradient, ScoreModel, UNet
from scoresde.sde_lib import SDE, VE, Draws, ScoreFn
from scoresde.training import DenoisingScoreMatching, ImplicitScoreMatching, Loss, Trainer
from scoresde.training.batches import Batches, fits
from scoresde.training.speed import decide

from .test_training import network, planar, trainer, weights

CPU = torch.device("cpu")


def pictures(flip: bool = False, count: int = 20) -> Data:
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(0, 256, (count, 1, 6, 5), generator=generator, dtype=torch.uint8)
    data = Data(values, values[:4], 128, 128, levels=256, shuffle=False)
    data.flip = flip
    return data


def unet(shape=(1, 6, 5), **keys) -> ScoreModel:
    torch.manual_seed(0)
    return ScoreModel(VE(), UNet(shape, channels=[8, 8], attention=[3], **keys), EDM(0.5))


def fit(model, data, folder=None, seed=3, record=lambda event: None, **keys) -> nn.Module:
    torch.manual_seed(seed)
    return trainer(**keys).fit(VE(), model, data, folder, record)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_images_are_mirrored_by_the_step_and_the_seed():
    plain, mirrored = pictures(), pictures(flip=True)

    def rows(data, step, seed=5):
        return Batches(data, 16, seed, CPU).mirrored(data.train[:16], step)

    assert torch.equal(rows(plain, 3), plain.train[:16])
    seen = torch.stack([rows(mirrored, step) for step in range(60)])
    turned = torch.stack([(each == plain.train[:16].flip(-1)).flatten(1).all(1) for each in seen])
    kept = torch.stack([(each == plain.train[:16]).flatten(1).all(1) for each in seen])
    assert (turned ^ kept).all(), "as it is or mirrored left to right"
    share = turned.double().mean()
    assert abs(float(share) - 0.5) < 5 * 0.5 / math.sqrt(turned.numel())
    assert torch.equal(rows(mirrored, 7), seen[7]), "whatever came before"
    assert not torch.equal(rows(mirrored, 7, seed=6), seen[7])


def test_mirroring_draws_nothing_from_the_trainings_generator():
    torch.manual_seed(0)
    first = Batches(pictures(), 16, 0, CPU)(2)
    torch.manual_seed(0)
    second = Batches(pictures(flip=True), 16, 0, CPU)(2)
    assert not torch.equal(first, second)
    same = (first == second).flatten(1).all(1)
    assert 0 < int(same.sum()) < 16, "those that are not mirrored are dequantised by the same noise"


def test_mirroring_reaches_data_of_p_given_y():
    digits = Digits()
    digits.flip = True
    assert Conditional(digits, "labels").flip and not Conditional(Digits(), "labels").flip


@pytest.mark.parametrize("stop", [5, 7])
def test_a_resumed_training_sees_the_same_mirrored_images(tmp_path, stop):
    def run(folder, interrupt):
        def record(event):
            if event["step"] == interrupt and "gradient" in event:
                os.kill(os.getpid(), signal.SIGINT)

        try:
            return weights(fit(unet(), pictures(flip=True), folder, record=record))
        except KeyboardInterrupt:
            return run(folder, None)

    straight = run(tmp_path / "a", None)
    assert torch.equal(straight, run(tmp_path / "b", stop))
    assert not torch.equal(straight, weights(fit(unet(), pictures())))


def test_rows_that_come_ahead_are_the_same_rows():
    plain, ahead = (Batches(pictures(flip=True), 7, 4, CPU) for _ in range(2))
    ahead.thread = ThreadPoolExecutor(1)
    for step in (0, 1, 2, 9, 10, 4):  # 9 and 4 were not prefetched
        torch.manual_seed(step)
        expected = plain(step)
        torch.manual_seed(step)
        assert torch.equal(ahead(step), expected)
    ahead.close()


def test_data_lie_on_the_device_where_they_take_a_quarter_of_what_is_free():
    train = torch.zeros(100, 10, dtype=torch.uint8)
    assert fits(train, 4000) and not fits(train, 3999)


def test_the_share_of_waiting_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    events = []
    fit(unet(), pictures(), record=events.append)
    shares = [event["waiting"] for event in events if "gradient" in event]
    assert len(shares) == 12 and all(0 < share < 1 for share in shares)
    assert "the network waited for its data" in caplog.text


# --- a batch in parts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quiet(Loss):
    """A loss without noise, which depends on the batch only."""

    def __call__(self, sde: SDE, score: ScoreFn, x_0: torch.Tensor, draws: Draws | None = None) -> torch.Tensor:
        t = torch.full((len(x_0),), 0.3)
        return (score(x_0, t) + x_0 / (1 + t[:, None])).square().flatten(1).mean(1)


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts):
    """Parts of different sizes (16 rows in 3 parts) give the gradient of the whole batch."""

    def gradient(accumulate):
        torch.manual_seed(0)
        model = ScoreModel(VE(), MLP((2,), width=8, depth=2, fourier=4), EDM(1.0))
        fitter = Trainer(Quiet(), steps=1, batch=16, accumulate=accumulate)
        speed = decide(model, False, False, CPU, False, "float32", False)
        loss = fitter.gradient(VE(), model, Batches(planar(), 16, 0, CPU), 0, speed)
        return loss, torch.cat([p.grad.flatten() for p in model.parameters()])

    (whole, g), (loss, h) = gradient(1), gradient(parts)
    assert float(loss) == pytest.approx(float(whole), rel=1e-6)
    assert torch.allclose(g, h, rtol=1e-4, atol=1e-7) and g.norm() > 0


def test_each_part_is_given_its_own_y():
    seen = []

    class Heard(nn.Module):
        conditional = True

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def given(self, y):
            def score(x, t):
                seen.append((x.detach(), y))
                return self.scale * x

            return score

    data = Conditional(Data(torch.arange(12.0)[:, None].repeat(1, 2), torch.zeros(3, 2), 0.0, 1.0, shuffle=False), [0])
    speed = decide(Heard(), False, False, CPU, False, "float32", False)
    Trainer(Quiet(), steps=1, batch=6, accumulate=3).gradient(VE(), Heard(), Batches(data, 6, 0, CPU), 0, speed)
    assert [len(x) for x, _ in seen] == [2, 2, 2]
    for x, y in seen:
        decoded = y[:, 0].double() * data.condition.scale + data.condition.shift
        assert torch.allclose(decoded, data.decode(x)[:, 0].double(), atol=1e-4)


# --- late readings ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ahead(monkeypatch):
    """Losses are read one update later, as on a GPU."""
    monkeypatch.setattr(scoresde.training.trainer, "works_ahead", lambda device: True)


def test_late_readings_change_nothing(tmp_path, monkeypatch):
    found = []
    for late in (False, True):
        monkeypatch.setattr(scoresde.training.trainer, "works_ahead", lambda device, late=late: late)
        events = []
        fitted = fit(network(), planar(), record=events.append, steps=402)  # noted every second step
        saved = fit(network(), planar(), tmp_path / str(late), record=events.append, save_seconds=1e-9)
        told = [{k: v for k, v in event.items() if k != "waiting"} for event in events]
        found.append((weights(fitted), weights(saved), told))
    (first, second, told), (fitted, saved, late) = found
    assert torch.equal(first, fitted) and torch.equal(second, saved) and told == late and len(told) > 200


def poisoned(batch: int, step: int) -> Data:
    """Returns data with one NaN, which is first in a batch after some number of updates."""
    data = planar()
    order = Batches(data, batch, 0, CPU)
    before = {int(i) for k in range(step) for i in order.rows(k)}
    row = next(int(i) for i in order.rows(step) if int(i) not in before)
    data.train[row] = math.nan
    return data


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_loss_that_is_not_finite_leaves_the_weights_though_it_is_read_late(tmp_path, ahead, step):
    straight = network()
    fit(straight, planar(), schedule="constant", steps=step) if step else None
    model = network()
    with pytest.raises(FloatingPointError, match=f"stopped before update {step + 1}: .*still those of update {step}"):
        fit(model, poisoned(16, step), tmp_path, schedule="constant", evaluate=0)
    assert torch.equal(weights(model), weights(straight))
    assert not list(tmp_path.glob("step-*"))


def test_nothing_is_saved_after_an_update_that_was_not_taken(tmp_path, ahead):
    with pytest.raises(FloatingPointError, match="before update 3.*last good checkpoint"):
        fit(network(), poisoned(16, 2), tmp_path, save_seconds=1e-9, evaluate=0)
    assert sorted(path.name for path in tmp_path.glob("step-*"))[-1] == "step-00000002"


def test_a_bad_update_at_the_very_end_is_no_success(tmp_path, ahead):
    with pytest.raises(FloatingPointError, match="before update 3"):
        fit(network(), poisoned(16, 2), tmp_path, steps=3, evaluate=0)
    assert not list(tmp_path.glob("step-*"))


# --- layouts, precisions, compilation ---------------------------------------------------------------------------------


def test_channels_last_is_the_same_training_and_resumes_exactly(tmp_path):
    def run(folder, interrupt, layout):
        def record(event):
            if event["step"] == interrupt and "gradient" in event:
                os.kill(os.getpid(), signal.SIGINT)

        try:
            return fit(unet((3, 6, 5)), colour, folder, record=record, channels_last=layout)
        except KeyboardInterrupt:
            return run(folder, None, layout)

    generator = torch.Generator().manual_seed(2)
    colour = Data(torch.randn(20, 3, 6, 5, generator=generator), torch.randn(4, 3, 6, 5), 0.0, 1.0, shuffle=False)
    last, broken = run(tmp_path / "a", None, True), run(tmp_path / "b", 7, True)
    assert torch.equal(weights(last), weights(broken))
    assert all(p.is_contiguous() for p in last.parameters()), "as the store's network would be"
    memory = last.net.first.weight.detach().clone().to(memory_format=torch.channels_last).stride()
    assert memory != last.net.first.weight.stride()


class Noiseless(Quiet):
    def __call__(self, sde, score, x_0, draws=None):
        return score(x_0, torch.full((len(x_0),), 0.3)).square().flatten(1).mean(1)


def test_the_layout_is_no_part_of_the_result():
    """The weights agree up to rounding; the loss is without noise, whose order in memory would differ."""
    found = []
    for layout in (False, True):
        data = pictures()
        data.levels = None
        data.train = data.train.float()
        torch.manual_seed(0)
        model = unet()
        Trainer(Noiseless(), steps=3, batch=8, warmup=0, evaluate=0, channels_last=layout).fit(VE(), model, data)
        found.append(weights(model))
    assert torch.allclose(*found, atol=1e-4)


def test_a_compiled_network_is_the_same_network(monkeypatch):
    real, compiled = nn.Module.compile, []

    def eagerly(self):
        compiled.append(type(self).__name__)
        real(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    plain = weights(fit(network(), planar(), steps=4))
    assert compiled == []
    assert torch.equal(weights(fit(network(), planar(), steps=4, compile=True)), plain) and compiled == ["MLP"]


def test_half_precision_on_a_cpu_is_warned_about_and_keeps_weights_whole(caplog):
    fitted = fit(network(), planar(), steps=3, precision="bf16", evaluate=0)
    assert "training.precision=bf16 on device=cpu: processors with instructions for it" in caplog.text
    assert {p.dtype for p in fitted.parameters()} == {torch.float32}
    whole = fit(network(), planar(), steps=3, evaluate=0)
    difference = (weights(fitted) - weights(whole)).abs().max()
    assert 0 < difference < 0.05


@dataclass
class Device:
    type: str


@pytest.mark.parametrize(
    "device, images, half, energy, loss, expected",
    [
        ("cpu", True, True, False, DenoisingScoreMatching, (False, "float32", False)),
        ("mps", True, True, False, DenoisingScoreMatching, (False, "float32", False)),
        ("cuda", True, True, False, DenoisingScoreMatching, (True, "bf16", True)),
        ("cuda", True, False, False, DenoisingScoreMatching, (True, "tf32", False)),
        ("cuda", False, True, False, DenoisingScoreMatching, (True, "float32", False)),
        ("cuda", True, True, True, DenoisingScoreMatching, (False, "bf16", True)),
        ("cuda", True, True, False, ImplicitScoreMatching, (False, "bf16", True)),
    ],
)
def test_what_auto_stands_for(monkeypatch, device, images, half, energy, loss, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: half)
    net = MLP((2,), width=8, depth=2)
    model = ScoreModel(VE(), EnergyGradient(net) if energy else net, EDM(1.0))
    found = decide(model, images, loss.differentiates, Device(device), "auto", "auto", "auto")
    assert (found.compile, found.precision, found.channels_last) == expected


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="training.compile=true: what is trained here is differentiated twice"):
        Trainer(ImplicitScoreMatching(), steps=1, compile=True).fit(VE(), network(), planar())
    with pytest.raises(ValueError, match="training.precision=tf32 needs an NVIDIA GPU, and device=cpu; type"):
        fit(network(), planar(), precision="tf32")
    with pytest.raises(ValueError, match="`precision`=half must be auto, float32, tf32 or bf16"):
        trainer(precision="half")
    with pytest.raises(ValueError, match="`accumulate`=0 must be at least 1"):
        trainer(accumulate=0)
    with pytest.raises(ValueError, match="`accumulate`=17 must be at most 16"):
        trainer(accumulate=17)


def test_settings_of_the_process_are_as_they_were():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with decide(network(), False, False, CPU, False, "float32", False).applied(network(), Device("cuda")):
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
