"""Tests that networks of other codes are used as there, in files that are read and written, and that other uses are
refused.
"""

import logging

import pytest
import torch
from torch import nn

from scoresde.conf import schema
from scoresde.conf.foreign_checkpoints import from_foreign
from scoresde.conf.trained import build_model
from scoresde.models import EDM as EDMRow
from scoresde.models import Clock, NCSNpp, Noise, Score, ScoreModel, Velocity
from scoresde.models.convention import convention, table
from scoresde.models.layout import put, take
from scoresde.models.published import layout
from scoresde.sde_lib import EDM, VE, VP, Chain, SubVP
from scoresde.tasks import Export
from scoresde.tasks.parts.record import Record

from . import published_network
from .conftest import compose, job_of, make_sde, standard
from .test_export import ddpm, ncsnpp, written
from .test_ncsnpp import OPTIONS, narrow, ours, randomised

NCSNPP = published_network.NCSNPP | {"ch_mult": [1, 2]}
DDPMPP = NCSNPP | {
    "embedding_type": "positional", "fir": False, "progressive_input": "none",
    "scale_by_sigma": False, "centered": True,
}  # fmt: skip
PRESETS = {  # what experiment=score_sde/... stands for in the published code, and the step number or sigma of t there
    "ve_continuous": (NCSNPP, lambda t: 0.01 * 5000**t),
    "ve_steps": (NCSNPP | {"embedding_type": "positional"}, lambda t: (999 - 999 * t).round()),
    "vp_continuous": (DDPMPP, lambda t: 999 * t),
    "vp_steps": (DDPMPP, lambda t: t - 1),
    "subvp_continuous": (DDPMPP, lambda t: 999 * t),
}
CASES = [(name, *PRESETS[name], []) for name in PRESETS] + [
    (name, published_network.DDPM, PRESETS[name][1], ["model=ddpm", "model.groups=32"])
    for name in PRESETS
    if name[:2] != "ve"
]
CASES += [
    ("ve_steps", published_network.DDPM | {"scale_by_sigma": True, "centered": False}, PRESETS["ve_steps"][1],
     ["model.residual=ddpm", "model.fir_kernel=null", "model.skip_rescale=false", "model.progressive_input=none",
      "model.groups=32"])
]  # fmt: skip


def words_of(name: str, config: dict, *more: str) -> list[str]:
    sizes = [f"model.width={config['nf']}", "model.multipliers=[1,2]", "model.blocks=1", "model.attention=[4]"]
    return [f"experiment=score_sde/{name}", "data=unseen", "data.shape=[3,8,8]", *sizes, *more]


def model_of(words: list[str]) -> tuple[ScoreModel, object]:
    cfg = schema.settle(compose(*words), (3, 8, 8), standard((3, 8, 8)))
    sde = schema.build(schema.canonical(cfg["sde"]), "sde")
    return build_model(cfg, sde).double(), sde


def published_score(config: dict, weights: dict, sde, x: torch.Tensor, t: torch.Tensor, label) -> torch.Tensor:
    """Returns the score that the published code computes with its network, in model units."""
    labels = label(t)
    if config["scale_by_sigma"]:  # for images in [0, 1] the score is twice as long
        return published_network.network(config, weights, (x + 1) / 2, labels) / 2
    return -published_network.network(config, weights, x, labels) / sde.sigma(t)[:, None, None, None]


def times(name: str, sde) -> torch.Tensor:
    """Returns times at which both codes have a level: those of whole steps if it counts steps."""
    whole = torch.tensor([7, 500, 950], dtype=torch.float64)
    return {"vp_steps": whole, "ve_steps": 1 - whole / 999}.get(name, torch.tensor([0.01, 0.4, 0.97]).double())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]['name']}")
def test_a_run_makes_the_published_score_of_a_file(tmp_path, case):
    name, config, label, more = case
    weights = {key: each.float() for key, each in published_network.weights(config, 3).items()}
    torch.save(published_network.file(config, weights), tmp_path / "checkpoint.pth")
    model, sde = model_of(words_of(name, config, *more))
    score = from_foreign(str(tmp_path / "checkpoint.pth"), model, sde)
    t = times(name, sde)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64) * sde.sigma(t)[:, None, None, None] ** 0.5
    expected = published_score(config, {k: each.double() for k, each in weights.items()}, sde, x, t, label)
    with torch.no_grad():
        torch.testing.assert_close(score(x, t), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]['name']}")
def test_the_published_code_makes_the_same_score_of_an_exported_file(tmp_path, case, caplog):
    """The published code computes the same score with the configuration that the export logs."""
    name, config, label, more = case
    model, sde = model_of(words_of(name, config, *more))
    score = ScoreModel(sde, randomised(model.net), model.parameterisation)
    with caplog.at_level(logging.INFO):
        Export(path=str(tmp_path / "file.pth"))(job_of(sde, score, None, Record(tmp_path)))
    file = torch.load(tmp_path / "file.pth")
    weights = {key.removeprefix("module."): each.double() for key, each in file["model"].items()}
    sigmas = weights.pop("sigmas")
    told = dict(part.split("=", 1) for part in caplog.messages[-2].removeprefix(NEEDS).split(", ") if "=" in part)
    assert {key: told[key] for key in ("name", "nf", "scale_by_sigma", "centered", "num_scales")} == {
        key: str(config[key]) for key in ("name", "nf", "scale_by_sigma", "centered", "num_scales")
    }
    assert [(key, tuple(each.shape)) for key, each in weights.items()] == published_network.shapes(config)
    torch.testing.assert_close(sigmas, published_network.sigmas(config))
    t = times(name, sde)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64) * sde.sigma(t)[:, None, None, None] ** 0.5
    with torch.no_grad():
        expected = published_score(config, weights, sde, x, t, label)
        torch.testing.assert_close(score(x, t), expected, rtol=1e-4, atol=1e-4)  # the file holds float32


NEEDS = "the code that reads it needs "
UNTOLD = [i for i in range(len(OPTIONS)) if not narrow(i)["conditional"]]


@pytest.mark.parametrize("i", UNTOLD[:3])
def test_a_network_that_takes_no_noise_level_leaves_the_layers_of_the_noise_alone(i):
    """The unused layers are written as zeros and ignored when read, and the average has the published length."""
    config = narrow(i)
    net = ours(config)
    unused = [entry.name for entry in layout(net) if entry.own is None]
    assert unused and all(".Dense_0." in name for name in unused)
    assert all(entry.trained for entry in layout(net)) and not any(take(net, layout(net))[n].any() for n in unused)
    before = [parameter.clone() for parameter in net.parameters()]
    put(net, layout(net), take(net, layout(net)) | {name: torch.ones(1) for name in unused})
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


FOURIER, STEPS = ours(NCSNPP), ours(DDPMPP)


def positional(sde, **keys) -> NCSNpp:
    """Returns a network that takes a step number of an SDE."""
    clock = Clock(sde, **keys)
    return NCSNpp((3, 8, 8), 8, (1, 2), 1, (4,), embedding="positional", clock=clock)


@pytest.mark.parametrize(
    "net, sde, row, says",
    [
        (
            STEPS,
            VP(),
            Score(),
            "a VP or sub-VP network of other codes takes x at the scale of its SDE and predicts the noise",
        ),
        (STEPS, VP(), Velocity(), "predicts the noise: type parameterisation=noise"),
        (STEPS, VE(), Score(VE()), "a VP or sub-VP network of other codes takes x at the scale of its SDE"),
        (FOURIER, VP(), Noise(), "a VE network of other codes takes data plus noise, unscaled,"),
        (FOURIER, VE(), Noise(VE()), "and predicts sigma times the score: type parameterisation=score"),
        (FOURIER, VE(), Score(), "a VE network of other codes takes data plus noise, unscaled,"),
        (FOURIER, VE(), EDMRow(), "a VE network of other codes takes data plus noise, unscaled,"),
        (positional(SubVP()), SubVP(), Noise(), "for sub-VP with parameterisation.input"),
        (positional(VE(), scale=-999, offset=999), VE(), Noise(VE()), "a VE network of other codes takes data plus"),
        (
            ours(DDPMPP | {"conditional": False}),
            VP(),
            Score(),
            "a VP or sub-VP network of other codes takes x at the scale",
        ),
        (NCSNpp((3, 8, 8), 8, (1, 2), 1, (4,), embedding="positional"), VP(), Noise(), "and model.clock is null"),
    ],
)
def test_another_use_than_the_published_one_is_refused(tmp_path, net, sde, row, says):
    """It is refused before a training and before the file is read, though names and shapes would fit."""
    score = ScoreModel(sde, net, row)
    with pytest.raises(ValueError, match=says):
        Export().check_network(sde, score)
    torch.save({}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=f"file.pth is a file: .*{says}"):
        from_foreign(str(tmp_path / "file.pth"), score, sde)


PLAIN = {"residual": "ddpm", "fir_kernel": None, "skip_rescale": False, "progressive_input": "none"}


@pytest.mark.parametrize(
    "net, keys, says",
    [
        ({"data_range": 3.0}, {}, r"model.data_range=3.0: the published code has images in \[0, 1\] or in \[-1, 1\]"),
        ({"clock": Clock(VE(), -999, 999)}, {"scales": 500}, "counts a VE network's steps along 500 geometric levels"),
        ({"clock": Clock(VE(), -500, 500)}, {}, "along 1000 geometric levels, from the largest down, and model.clock"),
        ({"clock": Clock(EDM(), -999 / 80, 999)}, {}, "and model.clock counts otherwise: choose the network with exp"),
        ({"multipliers": (1, 1, 1, 1, 1)}, {}, "halves images of 8 x 8 pixels 4 times, which must divide evenly"),
        ({"shape": (3, 8, 7)}, {}, "sides are multiples of 2"),
        ({"groups": 8}, {}, r"min\(C/4, 32\) groups of C channels and DDPM 32, but this network 8 of 8: type model.gr"),
        (
            PLAIN | {"groups": 4, "clock": Clock(VP())},
            {},
            "model.groups=null, or model.groups=32 with a multiple of 32",
        ),
        ({"width": 34}, {}, r"min\(34/4, 32\) does not divide the 34 channels of a level here"),
        (PLAIN | {"width": 32, "groups": 32, "embedding": "none"}, {}, "DDPM takes the noise level as input"),
    ],
)
def test_a_file_that_would_be_another_function_there_is_not_written(net, keys, says):
    net = {"embedding": "positional"} | net if "clock" in net else net
    net = NCSNpp(**{"shape": (3, 8, 8), "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": ()} | net)
    clock = net.features.clock if hasattr(net.features, "clock") else None
    sde = VE() if clock is None else clock.sde
    row = Noise() if isinstance(sde, VP) or net.features is None else Score(VE())
    with pytest.raises(ValueError, match=says):
        Export(**keys).check_network(sde, ScoreModel(sde, net, row))


@pytest.mark.parametrize("sde", [VE(), VP(), SubVP(), Chain(), EDM()], ids=lambda sde: type(sde).__name__)
def test_the_use_is_the_networks_and_not_the_runs(sde):
    """Under another SDE a network is used as under its own: at equal noise its score of x/alpha is the same."""
    nets = ours(narrow(0) | {"centered": False}), ours(published_network.DDPM)
    assert convention(ScoreModel(sde, nets[0], Score(VE()))) == 1
    assert convention(ScoreModel(sde, nets[1], Noise())) == -1


def test_the_table_of_a_file():
    """A VE run has the published table at any length; an SDE without noise at t = 0 starts at its smallest level."""
    score = ScoreModel(VE(0.02, 100.0), ours(NCSNPP), Score(VE()))
    torch.testing.assert_close(table(score, 1, 2.0, 1000), published_network.sigmas(NCSNPP))
    assert len(table(score, 1, 2.0, 2000)) == 2000
    levels = table(ScoreModel(EDM(), ours(NCSNPP), Score(VE())), 1, 2.0, 1000)
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([40.0, 0.001], dtype=torch.float64))


def test_what_no_table_has():
    with pytest.raises(ValueError, match="`scales`=1 must be at least 2"):
        Export(scales=1)


# --- diffusers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [True, False])
def test_a_folder_read_needs_a_clock(tmp_path, score):
    """The scheduler defines what a network of diffusers predicts, but the step number needs a clock."""
    net = ddpm()
    folder = written(net, tmp_path / "net")
    sde = make_sde("chain")
    row = Score() if score else Noise()
    assert from_foreign(str(folder), ScoreModel(sde, net, row), sde).net is net
    net.features.clock = None
    with pytest.raises(ValueError, match="is a folder of diffusers: other codes count the step numbers"):
        from_foreign(str(folder), ScoreModel(sde, net, row), sde)


@pytest.mark.parametrize("make, row", [(ncsnpp, Noise(VE())), (ncsnpp, Score()), (ddpm, Score())])
def test_a_folder_that_would_be_another_function_there_is_not_written(make, row):
    with pytest.raises(ValueError, match="this run's parameterisation is another"):
        Export(format="diffusers").check_network(VE(), ScoreModel(VE(), make(), row))


def test_a_step_number_of_ve_is_not_diffusers():
    net: nn.Module = NCSNpp(
        (1, 8, 8), width=32, multipliers=(1, 1), blocks=1, attention=(), attention_up="all", embedding="positional",
        residual="ddpm", fir_kernel=None, skip_rescale=False, progressive_input="none", groups=32,
        clock=ours(published_network.DDPM | {"scale_by_sigma": True}).features.clock,
    )  # fmt: skip
    with pytest.raises(ValueError, match="networks of diffusers that take a step number predict the noise"):
        Export(format="diffusers").check_network(VE(), ScoreModel(VE(), net, Score(VE())))
