"""Tests that parts of a batch, ranks, resuming and other users of torch do not change a training's random numbers."""

import os
import random
import re
import signal
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from scoresde.conf import reload
from scoresde.data import Conditional, Data
from scoresde.latent import GAN, VAE, Adversarial, Bound, Dense, Gaussian, ScorePrior, StandardNormal, WassersteinLoss
from scoresde.models import EDM, MLP, Bits, Classifier, Noise, ScoreModel, UNet
from scoresde.models.classifier import MLPClassifier
from scoresde.models.features import FeatureMLP
from scoresde.sde_lib import VE, VP, BinaryChain, Draws, Masks
from scoresde.training import (
    BinaryLoss,
    CrossEntropy,
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    Recognition,
    SlicedScoreMatching,
    Trainer,
    checkpoint,
    levels,
    store,
)
from scoresde.training.batches import Batches
from scoresde.training.checkpoint import Checkpoint, Outdated
from scoresde.training.speed import decide

from .test_training import network, planar, trainer, weights

CPU = torch.device("cpu")


def mlp(**keys) -> MLP:
    return MLP((2,), width=8, depth=2, fourier=4, dropout=0.3, **keys)


def pictures() -> Data:
    values = torch.randint(0, 16, (21, 1, 6, 5), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = Data(values, values[:9], 8, 8, levels=16)
    data.flip = True
    return data


def bits() -> Data:
    values = torch.randint(0, 2, (21, 2), generator=torch.Generator().manual_seed(2)).float() * 2 - 1
    return Data(values, values[:9], 0.0, 1.0)


def labelled() -> Data:
    data = planar(21)
    data.train_labels, data.test_labels = (torch.arange(len(part)) % 3 for part in (data.train, data.test))
    return Conditional(data, "labels")


def vae(prior) -> VAE:
    return VAE((2,), 3, Dense(8, 2, dropout=0.3), Gaussian(), prior)


SDE = VP()
KINDS = {
    "denoising": (SDE, DenoisingScoreMatching(), lambda: ScoreModel(SDE, mlp(), EDM()), planar),
    "not stratified": (SDE, DenoisingScoreMatching(stratified=False), lambda: ScoreModel(SDE, mlp(), EDM()), planar),
    "blend": (SDE, DenoisingScoreMatching(levels.Blend()), lambda: ScoreModel(SDE, mlp(), EDM()), planar),
    "implicit": (SDE, ImplicitScoreMatching(), lambda: ScoreModel(SDE, mlp(), EDM()), planar),
    "sliced": (SDE, SlicedScoreMatching(directions=2), lambda: ScoreModel(SDE, mlp(), EDM()), planar),
    "sliced, gaussian": (
        SDE,
        SlicedScoreMatching(directions=3, law="gaussian", variance_reduced=False),
        lambda: ScoreModel(SDE, mlp(), EDM()),
        planar,
    ),
    "pictures": (
        VE(),
        DenoisingScoreMatching(),
        lambda: ScoreModel(VE(), UNet((1, 6, 5), channels=[8, 8], attention=[3], dropout=0.3), EDM()),
        pictures,
    ),
    "checkpointing": (
        VE(),
        DenoisingScoreMatching(),
        lambda: ScoreModel(VE(), UNet((1, 6, 5), channels=[8], attention=[6], dropout=0.3, checkpointing=True), EDM()),
        pictures,
    ),
    "condition": (SDE, DenoisingScoreMatching(), lambda: ScoreModel(SDE, mlp(condition=4), EDM()), labelled),
    "classifier": (SDE, CrossEntropy(), lambda: Classifier(SDE, MLPClassifier((2,), 3, width=8, depth=2)), labelled),
    "recognition": (None, Recognition(), lambda: FeatureMLP((2,), 3, width=8, dropout=0.3), labelled),
    "bits": (BinaryChain(), BinaryLoss(), lambda: ScoreModel(BinaryChain(), mlp(), Bits()), bits),
    "vae": (None, Bound(), lambda: vae(StandardNormal()), planar),
    "score prior": (
        None,
        Bound(),
        lambda: vae(ScorePrior(SDE, MLP((3,), width=8, depth=1, dropout=0.3), Noise())),
        planar,
    ),
    "gan": (None, Adversarial(), lambda: GAN((2,), 3, Dense(8, 1, dropout=0.3)), planar),
}


def update(kind: str, accumulate: int = 1, disturbance: int = 0) -> tuple[float, torch.Tensor]:
    """Returns the loss and the gradient of one step in the middle of a training, in float64 where nothing is cast."""
    sde, loss, build, make = KINDS[kind]
    torch.manual_seed(0)
    model = build()
    for parameter in model.parameters():  # last layers start at zero, which would hide the dropout before them
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.manual_seed(disturbance)
    fitter = Trainer(loss, steps=100, batch=16, accumulate=accumulate, drop=0.4)
    speed = decide(model, False, loss.differentiates, CPU, False, "float32", False)
    batches = Batches(make(), 16, 0, CPU)
    with Masks(model.train(), 0) as masks:
        value = fitter.gradient(sde, model, batches, 5, speed, masks)
    return float(value), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_does_not_depend_on_parts_nor_on_torchs_generator(kind):
    """Dropout, dropped conditions, stratified times, directions, dequantisation, mirroring and codes included."""
    loss, gradient = update(kind)
    assert gradient.norm() > 0
    again = update(kind, disturbance=1)
    assert again[0] == loss and torch.equal(again[1], gradient)
    for parts in (3, 16):  # 16 in 3 are parts of 6, 5 and 5
        value, found = update(kind, parts)
        assert value == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=2e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("cuts", [[0, 1, 16], [0, 9, 11, 16], list(range(17))], ids=str)
def test_ranks_of_uneven_shares_have_the_gradient_of_one(cuts):
    """Each rank draws the numbers of its own rows only, in its own process."""
    sde, loss, build, make = KINDS["denoising"]
    x = Batches(make(), 16, 0, CPU)(3)
    total = []
    for first, last in [(0, 16), *pairwise(cuts)]:
        torch.manual_seed(0)
        model = build()
        draws = Draws(0, 16, step=3, first=first, count=last - first)
        with Masks(model.train(), 0) as masks:
            masks.at(draws)
            (loss(sde, model, x[first:last], draws).sum() / 16).backward()
        total.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(sum(total[1:]), total[0], rtol=1e-4, atol=1e-6)


def test_a_loss_that_compares_a_batch_is_not_cut():
    with pytest.raises(ValueError, match="`accumulate`=2: this loss compares .* whole batch.*type `accumulate`=1"):
        Trainer(WassersteinLoss(), accumulate=2)


def states() -> list[bytes]:
    numpy_state = np.random.get_state()
    return [
        torch.get_rng_state().numpy().tobytes(),
        numpy_state[1].tobytes() + bytes(numpy_state[2]),
        repr(random.getstate()),
    ]


def stir(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_training_leaves_the_global_generators_and_is_left_by_them(parts):
    """All of a training is independent: initial weights, updates and held-out losses."""
    found = []
    for seed in (1, 2):
        stir(seed)
        before = states()
        fitter = trainer(accumulate=parts, seed=5)
        with fitter.seeded():
            model = ScoreModel(VE(), mlp(), EDM())
        assert states() == before
        stir(seed + 10)  # numbers drawn in between
        before = states()

        def disturbing(event):
            torch.rand(3)

        found.append(weights(fitter.fit(VE(), model, planar(), record=disturbing if seed == 2 else lambda event: None)))
        if seed == 1:
            assert states() == before
    assert torch.equal(*found)


def test_seeded_is_left_where_it_fails():
    stir(3)
    before = states()
    with pytest.raises(KeyError), trainer(seed=5).seeded():
        raise KeyError
    assert states() == before


class Foreign(nn.Module):
    """A user's network, which draws from torch's generator."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.SiLU(), nn.Linear(8, 2))

    def forward(self, x, t):
        return self.inner(x)


def test_what_draws_from_torch_is_resumed_too(tmp_path):
    def run(folder, stop):
        def record(event):
            if stop and event["step"] == stop and "gradient" in event:
                os.kill(os.getpid(), signal.SIGINT)

        try:
            return weights(trainer().fit(VE(), Foreign(), planar(), folder, record))
        except KeyboardInterrupt:
            torch.manual_seed(99)
            return run(folder, None)

    assert torch.equal(run(tmp_path / "a", None), run(tmp_path / "b", 5))


def test_the_held_out_loss_is_one_number(monkeypatch):
    """The held-out loss is the same at every call, for every state of torch's generator, whole or in parts."""
    torch.manual_seed(0)
    model, data = network().eval(), planar(50)
    data.test = torch.randn(300, 2)
    found = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = states()
        found.add(trainer().held_out(VE(), model, data))
        assert states() == before
    assert len(found) == 1
    loss = DenoisingScoreMatching()
    with torch.no_grad():
        whole = loss(VE(), model, data.test, Draws(0, 300, purpose="held out")).mean()
    assert found.pop() == pytest.approx(float(whole), rel=1e-6)


# Checkpoints


def test_checkpoints_hold_no_generator(tmp_path):
    trainer().fit(VE(), network(), planar(), tmp_path)
    (path,) = tmp_path.glob("step-*")
    names = sorted(file.name for file in path.iterdir())
    assert names == ["ema.safetensors", "manifest.json", "model.safetensors", "optimiser.safetensors", "state.json"]
    assert set(checkpoint.load(path).state) == {"loss", "ema_updates", "optimiser"}


ONE_SENTENCE = "was trained by an earlier version of this code, whose networks differ; run the command that "


@pytest.fixture
def older(tmp_path, monkeypatch):
    """Writes checkpoints like the previous version of the code."""

    def write(folder, identity=None, name="moons", step=12):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "VERSION", checkpoint.VERSION - 1)
            patch.setattr(store, "VERSION", checkpoint.VERSION)
            if identity is not None:
                folder = tmp_path / f"{name}-{store.digest(identity)}"
            found = Checkpoint(step, {"ema": {"weight": torch.zeros(1, 1)}}, {"loss": 0.0})
            checkpoint.save(folder, found)
            checkpoint.save(folder, found, kind="kept")
        if identity is not None:
            store.write_config(folder, identity)
        return folder

    return write


IDENTITY = {key: {"x": 1} for key in ("data", "sde", "model", "parameterisation", "training")}


def test_an_older_training_is_not_resumed(tmp_path, older):
    older(tmp_path)
    with pytest.raises(Outdated, match=ONE_SENTENCE + "trained it once more") as told:
        trainer().fit(VE(), network(), planar(), tmp_path)
    assert str(tmp_path) in str(told.value) and len(str(told.value).splitlines()) == 1
    assert (tmp_path / "step-00000012").exists(), "and not taken for a damaged one"


@pytest.mark.parametrize("name", ["as it was named", "renamed", "step", "kept"])
def test_an_older_network_is_refused_by_name(tmp_path, older, name):
    folder = older(None, IDENTITY)
    if name == "renamed":  # then its name contains no hash
        folder = folder.rename(tmp_path / "mine")
    path = {"step": folder / "step-00000012", "kept": folder / "kept-00000012"}.get(name, folder)
    for read in (store.read, reload.load):
        with pytest.raises(ValueError, match=re.escape(f"checkpoint={path} ") + ONE_SENTENCE):
            read(path)


@dataclass(frozen=True)
class Counting:
    """A loss that records its draws."""

    seen: list
    differentiates = False

    def __call__(self, sde, score, x_0, draws=None):
        self.seen.append((draws.first, draws.count, draws.total, draws.step))
        return score(x_0, torch.ones(len(x_0))).square().sum(1)


def test_each_part_is_given_its_rows():
    seen: list = []
    Trainer(Counting(seen), steps=2, batch=16, accumulate=3, evaluate=0).fit(VE(), network(), planar())
    assert seen == [(0, 6, 16, 0), (6, 5, 16, 0), (11, 5, 16, 0), (0, 6, 16, 1), (6, 5, 16, 1), (11, 5, 16, 1)]
