"""NCSN++, DDPM++ and DDPM: their sizes as published, their arithmetic against a second implementation
(published_network.py), any height and width, the step numbers, and the filters against scipy.
"""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor, nn

from scoresde.conf import schema
from scoresde.models import Clock, NCSNpp, Noise, Score, ScoreModel
from scoresde.models.embedding import Positional, RandomFourier
from scoresde.models.layout import put, take
from scoresde.models.published import layout, settings
from scoresde.models.resample import Down, Resample, Up
from scoresde.sde_lib import VE, VP

from . import published_network
from .conftest import ROOT, SDES, compose, make_sde, standard

PRESETS = sorted(
    str(path.relative_to(ROOT / "conf/experiment").with_suffix(""))
    for path in (ROOT / "conf/experiment/score_sde").rglob("*.yaml")
)
CIFAR = {  # modules, tensors with the table of sigmas, tensors of the average, parameters with the frozen frequencies
    "ve/cifar10_ncsnpp": (58, 571, 570, 62_693_251),
    "ve/cifar10_ncsnpp_continuous": (59, 572, 570, 62_758_915),
    "ve/cifar10_ncsnpp_deep_continuous": (95, 964, 962, 107_587_075),
    "vp/cifar10_ddpm": (37, 309, 308, 35_218_947),
    "vp/cifar10_ddpm_continuous": (37, 309, 308, 35_218_947),
    "vp/cifar10_ddpmpp": (55, 565, 564, 61_804_419),
    "vp/cifar10_ddpmpp_continuous": (55, 565, 564, 61_804_419),
    "vp/cifar10_ddpmpp_deep_continuous": (91, 957, 956, 106_632_579),
    "subvp/cifar10_ddpm_continuous": (37, 309, 308, 35_218_947),
    "subvp/cifar10_ddpmpp_continuous": (55, 565, 564, 61_804_419),
    "subvp/cifar10_ddpmpp_deep_continuous": (91, 957, 956, 106_632_579),
}
OTHERS = {"ve/bedroom_ncsnpp_continuous": (77, 646, 65_574_549), "ve/ffhq_ncsnpp_continuous": (70, 554, 105_785_896)}


def settled(name: str, *words: str, shape=(3, 32, 32)) -> dict:
    cfg = compose(f"experiment={name}", "data=unseen", f"data.shape=[{','.join(map(str, shape))}]", *words)
    return schema.settle(cfg, shape, standard(shape))


def preset_network(name: str, shape=(3, 32, 32)) -> NCSNpp:
    """Returns the network of a preset, without memory for its weights."""
    with torch.device("meta"):  # on which a clock could not check its SDE; it holds no weights
        return schema.build(settled(f"score_sde/{name}", shape=shape)["model"] | {"clock": None}, "model")


def sizes(net) -> tuple[int, int, int, int]:
    entries = layout(net)
    modules = 1 + max(int(entry.name.split(".")[1]) for entry in entries)
    return modules, len(entries) + 1, sum(e.trained for e in entries), sum(math.prod(e.shape) for e in entries)


@pytest.mark.parametrize("name", CIFAR)
def test_networks_have_the_published_sizes(name):
    assert sizes(preset_network(name)) == CIFAR[name]


@pytest.mark.parametrize("name", OTHERS)
def test_large_networks_have_the_published_sizes(name):
    side = 256 if "bedroom" in name else 1024
    modules, tensors, _, parameters = sizes(preset_network(name, (3, side, side)))
    assert (modules, tensors, parameters) == OTHERS[name]


@pytest.mark.parametrize(
    "name, attention, ends",
    [  # the published indices of attention and resampling
        ("ve/cifar10_ncsnpp_continuous", {11, 13, 15, 17, 31, 50}, {9, 19, 25}),
        ("vp/cifar10_ddpmpp_continuous", {9, 11, 13, 15, 27, 46}, set()),
        ("vp/cifar10_ddpm", {7, 9, 17, 30}, {5, 10, 13, 22, 26, 31}),
    ],
)
def test_modules_stand_at_their_published_places(name, attention, ends):
    names = [entry.name for entry in layout(preset_network(name))]
    assert {int(each.split(".")[1]) for each in names if "NIN_3" in each} == attention
    alone = {int(n.split(".")[1]) for n in names if n.split(".")[2] in ("Conv_0", "Conv2d_0")}
    with_norm = {int(n.split(".")[1]) for n in names if "GroupNorm_0" in n}
    assert alone - with_norm == ends


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_run(name):
    """A preset fits its constructors and the published layout, and x reaches the network at the scale of training."""
    cfg = settled(name)
    for key in ("sde", "parameterisation", "training", "sampler", "model"):
        schema.check(cfg[key], key)
    sde, row = (schema.build(schema.canonical(cfg[key]), key) for key in ("sde", "parameterisation"))
    t = torch.linspace(sde.eps, sde.T, 50, dtype=torch.float64)
    c_skip, c_out, c_in = row.coefficients(sde.alpha(t), sde.sigma(t))
    sign = 1.0 if float(sde.alpha(t[-1])) == 1 else -1.0  # score times sigma under VE, the noise under VP and sub-VP
    torch.testing.assert_close(c_in, torch.ones_like(t), rtol=1e-6, atol=0)
    torch.testing.assert_close(c_out * sde.sigma(t), torch.full_like(t, sign))
    assert not c_skip.any()
    cfg["model"] |= {"width": 32, "clock": None}
    with torch.device("meta"):
        assert layout(schema.build(cfg["model"], "model"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_tell_the_published_number(name):
    """Step numbers are 999 t, n - 1 of 1000, or 999 (1 - t) for discrete VE; sigma is in units of the data's range."""
    cfg = settled(name)
    if cfg["model"]["clock"] is None:
        assert cfg["model"]["embedding"] == "fourier" and cfg["model"]["data_range"] == 2
        return
    sde, clock = (schema.build(schema.canonical(each), "sde") for each in (cfg["sde"], cfg["model"]["clock"]))
    t = torch.linspace(sde.eps, sde.T, 999, dtype=torch.float64)
    told = clock((sde.sigma(t) / sde.alpha(t)).log() / 4)
    if "ve" in name.split("/")[1]:
        wanted = 999 - 999 * t if float(sde.alpha(t[-1])) == 1 else 999 * t
    else:
        wanted = t - 1 if sde.T == 1000 else 999 * t
    torch.testing.assert_close(told, wanted, rtol=0, atol=1e-4)


OPTIONS = [
    published_network.NCSNPP | {
        "resblock_type": residual, "fir": fir, "skip_rescale": rescale, "progressive": progressive,
        "progressive_input": pyramid, "progressive_combine": combine, "embedding_type": embedding,
    }
    for residual, fir, rescale, progressive, pyramid, combine, embedding in itertools.product(
        ("biggan", "ddpm"),
        (True, False),
        (True, False),
        ("none", "output_skip", "residual"),
        ("none", "input_skip", "residual"),
        ("sum", "cat"),
        ("fourier", "positional"),
    )
    if pyramid == "input_skip" or combine == "sum"
]  # fmt: skip
KERNELS = [1, 3, 3, 1], [1, 2, 1], [1, 2, 4, 1], [1, 4, 6, 4, 1], [1, 1]  # sums whose inverse is exact in float32


def narrow(i: int) -> dict:
    """Returns the i-th combination of the options, with a small width and choices that change no name or shape."""
    draw = random.Random(i)
    config = OPTIONS[i] | {
        "nf": draw.choice([4, 8, 12, 16, 20, 32]),
        "ch_mult": draw.choice([[1, 2], [2, 1]]) if i % 8 else [1, 1, 2],
        "num_res_blocks": 1 if i % 5 else 2,
        "attn_resolutions": draw.choice([[4], [8, 4], []]),
        "fir_kernel": draw.choice(KERNELS),
        "resamp_with_conv": draw.random() < 0.7,
        "scale_by_sigma": draw.random() < 0.5,
        "centered": draw.random() < 0.5,
        "num_channels": draw.choice([1, 3]),
    }
    return config | {"conditional": config["embedding_type"] == "fourier" or draw.random() < 0.7}


DDPMS = [
    published_network.DDPM | {
        "nf": nf, "ch_mult": mult, "num_res_blocks": blocks, "attn_resolutions": attention, "resamp_with_conv": learnt,
        "scale_by_sigma": by_sigma, "centered": not by_sigma,
    }
    for nf, mult, blocks, attention, learnt, by_sigma in [
        (32, [1, 2], 2, [4], True, False), (32, [1, 3, 2], 1, [8, 2], False, False), (32, [2, 1], 1, [8], True, True),
        (64, [1, 2], 1, [], True, False), (96, [1], 1, [4], True, True), (96, [1, 2], 1, [4], False, False),
        (160, [1], 1, [4], True, False),
    ]
]  # fmt: skip


def ours(config: dict, **keys) -> NCSNpp:
    """Returns the network of a published configuration."""
    clock = Clock(VE(0.02, 100.0), -999.0, 999.0) if config["scale_by_sigma"] else Clock(VP())
    embedding = config.get("embedding_type", "positional") if config["conditional"] else "none"
    own = {"residual": "ddpm", "fir_kernel": None, "skip_rescale": False, "progressive_input": "none", "groups": 32}
    if config["name"] == "ncsnpp":
        own = {key: config[key] for key in ("skip_rescale", "progressive", "progressive_input")}
        own |= {"residual": config["resblock_type"], "fir_kernel": config["fir_kernel"] if config["fir"] else None}
        own |= {"combine": config["progressive_combine"]}
    side = config["image_size"]
    return NCSNpp(
        **{"shape": (config["num_channels"], side, side)} | own | keys, width=config["nf"],
        multipliers=config["ch_mult"], blocks=config["num_res_blocks"], attention=config["attn_resolutions"],
        dropout=0.3, embedding=embedding, clock=clock if embedding == "positional" else None,
        resample_with_conv=config["resamp_with_conv"], data_range=1.0 if config["centered"] else 2.0,
    )  # fmt: skip


def both(net: NCSNpp, config: dict, weights: dict, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Returns our output and the published one for the same images and noise levels."""
    size = size or (config["image_size"],) * 2
    x = torch.rand(2, config["num_channels"], *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    n = torch.tensor([30, 950])
    if config.get("embedding_type") == "fourier":
        labels = torch.tensor([0.03, 7.0], dtype=torch.float64)
        c = (net.data_range * labels).log() / 4
    else:
        labels, sde = n, VE(0.02, 100.0) if config["scale_by_sigma"] else VP()
        t = (999 - n if config["scale_by_sigma"] else n).double() / 999
        c = (sde.sigma(t) / sde.alpha(t)).log() / 4
    used = labels if config.get("embedding_type") == "fourier" else published_network.sigmas(config)[n]
    with torch.no_grad():
        theirs = published_network.network(config, weights, x, labels)
        theirs = theirs * used[:, None, None, None] if config["scale_by_sigma"] else theirs
        return net(x if config["centered"] else 2 * x - 1, c), theirs


def agree(config: dict, seed: int, size: tuple[int, int] | None = None) -> None:
    """A published state dict computes the same function here, and is exported unchanged under its names."""
    net, weights = ours(config).double().eval(), published_network.weights(config, seed)
    entries = layout(net)
    assert [(entry.name, entry.shape) for entry in entries] == published_network.shapes(config)
    put(net, entries, weights)
    found, expected = both(net, config, weights, size)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for entry, tensor in zip(entries, take(net, entries).values(), strict=True):
        assert torch.equal(tensor, weights[entry.name]) or entry.own is None and not tensor.any()


@pytest.mark.parametrize("i", range(12))
def test_the_network_is_the_published_one(i):
    """For all combinations of the options the output equals that of the second implementation; in twelve tests."""
    for j in range(i, len(OPTIONS), 12):
        agree(narrow(j), j)


@pytest.mark.parametrize("config", DDPMS, ids=lambda config: f"{config['nf']} x {config['ch_mult']}")
def test_narrow_ddpm_is_the_published_one(config):
    """DDPM has 32 groups of channels in every normalisation for every width."""
    agree(config, 0)


@pytest.mark.parametrize("config", [DDPMS[0], narrow(0), narrow(150)], ids=["ddpm", "biggan", "blocks of ddpm"])
def test_images_that_are_not_square(config):
    agree(config | {"attn_resolutions": []}, 1, (8, 16))


@pytest.mark.parametrize("config", [narrow(0), narrow(70), narrow(191), *DDPMS[:2]], ids=range(5))
def test_a_network_names_its_published_configuration(config):
    """With the keys of :func:`settings` the published code computes the same function."""
    found = settings(ours(config))
    unused = {"fir_kernel": None} if config.get("fir") is False else {}
    assert found == {key: config[key] for key in found} | unused


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Draws all weights, also those that start at zero, in float64."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    for parameter in net.parameters():
        scale = 0.3 if parameter.ndim <= 1 else 1 / math.sqrt(parameter[0].numel())
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


def test_weights_go_to_the_published_names_and_back():
    net, twin = (
        randomised(NCSNpp((1, 8, 8), width=8, multipliers=(1, 1), blocks=1, attention=(8,)), i) for i in (0, 1)
    )
    put(twin, layout(twin), take(net, layout(net)))
    for (name, a), b in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9), (13, 2)])
@pytest.mark.parametrize("fir", [[1.0, 3.0, 3.0, 1.0], None])
@pytest.mark.parametrize("residual", ["biggan", "ddpm"])
def test_any_height_and_width(size, fir, residual):
    """Every output pixel depends on every input pixel, also on those of an odd last row."""
    net = randomised(
        NCSNpp((2, *size), width=8, multipliers=(1, 1, 2), blocks=1, attention=(4, 2), residual=residual,
               fir_kernel=fir, progressive="output_skip", progressive_input="input_skip", embedding="smooth")
    )  # fmt: skip
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    out = net(x, torch.zeros(1, dtype=torch.float64))
    assert out.shape == x.shape
    for corner in (out[0, 0, 0, 0], out[0, 1, -1, -1]):
        (gradient,) = torch.autograd.grad(corner, x, retain_graph=True)
        assert bool((gradient != 0).all())


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 1], [1, 2, 1], [1, 4, 6, 4, 1], [3, 1, 1, 2]])
def test_filters_are_scipys_convolutions(taps):
    """Resampling inserts zeros, filters in both directions and takes every second pixel, aligned as in StyleGAN2."""
    resample, x = Resample(taps), torch.randn(1, 2, 6, 4, dtype=torch.float64)
    k = np.outer(taps, taps) / sum(taps) ** 2
    m, (small, large) = len(taps), (resample.down(x), resample.up(x, (12, 8)))
    for channel in range(2):
        plane = x[0, channel].numpy()
        whole, first = convolve2d(plane, k), m - 1 - (m - 1) // 2
        np.testing.assert_allclose(small[0, channel], whole[first::2, first::2][:3, :2], rtol=0, atol=1e-7)
        zeros = np.zeros((12, 8))
        zeros[::2, ::2] = plane
        first = m - 2 - (m - 1) // 2
        whole = np.pad(convolve2d(zeros, 4 * k), ((0, m), (0, m)))
        np.testing.assert_allclose(large[0, channel], whole[first : first + 12, first : first + 8], rtol=0, atol=1e-6)


def test_a_constant_stays_constant_in_the_middle():
    resample, x = Resample([1, 3, 3, 1]), torch.ones(1, 1, 8, 8)
    assert torch.allclose(resample.down(x)[..., 1:-1, 1:-1], torch.ones(2, 2))
    assert torch.allclose(resample.up(x, (16, 16))[..., 2:-2, 2:-2], torch.ones(12, 12))


@pytest.mark.parametrize("taps", [None, [1, 3, 3, 1]])
def test_learnt_resampling_halves_and_doubles(taps):
    x = torch.randn(1, 2, 7, 4)
    small = Down(2, 3, Resample(taps), True)(x)
    assert small.shape == (1, 3, 4, 2)
    assert Up(3, 2, Resample(taps), True)(small, (7, 4)).shape == x.shape


@pytest.mark.parametrize("name", SDES)
def test_a_clock_counts_along_its_own_sde(name):
    sde = make_sde(name)
    t = torch.linspace(sde.eps, sde.T, 40, dtype=torch.float64)
    c = (sde.sigma(t) / sde.alpha(t)).log() / 4
    torch.testing.assert_close(Clock(sde, -3.0, 2.0)(c), 2 - 3 * t, rtol=1e-6, atol=1e-6 * sde.T)


def test_embeddings_by_their_formulas():
    c = torch.tensor([-0.7, 0.4], dtype=torch.float64)
    fourier = RandomFourier(5, 16.0, 2.0).double()
    angle = 2 * math.pi * (torch.exp(4 * c) / 2).log()[:, None] * fourier.frequencies
    torch.testing.assert_close(fourier(c), torch.cat([angle.sin(), angle.cos()], 1))
    n = 250 * (c + 2.5)
    frequencies = torch.tensor([1.0, 1e4 ** (-1 / 2), 1e-4], dtype=torch.float64)
    expected = torch.cat([(n[:, None] * frequencies).sin(), (n[:, None] * frequencies).cos()], 1)
    torch.testing.assert_close(Positional(6).double()(c), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [Score, Noise])
@pytest.mark.parametrize("trained", ["ve", "subvp"])
def test_x_reaches_the_network_as_its_own_sde_leaves_it(sde, row, trained):
    """Under another SDE x_t is scaled to alpha' x_0 + sigma' z at the same noise level."""
    own = make_sde(trained)
    seen = {}

    class Net(nn.Module):
        def forward(self, x, c):
            seen["x"] = x
            return torch.zeros_like(x)

    t = own.time(torch.tensor([3.0, 0.0, -1.0], dtype=torch.float64))
    level = own.half_log_snr(t)
    there, x_0, z = sde.time(level), torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    keep = (there > sde.eps) & (there < sde.T)
    ScoreModel(sde, Net(), row(own))(sde.perturb(x_0, there, z)[keep], there[keep])
    torch.testing.assert_close(seen["x"], own.perturb(x_0, t, z)[keep], rtol=1e-5, atol=1e-6)


def test_checkpointing_changes_no_gradient():
    """Recomputed blocks have the same dropout and, bit for bit, the same gradients."""
    x, gradients = torch.randn(2, 1, 8, 8), []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        net = NCSNpp((1, 8, 8), width=8, multipliers=(1, 1), blocks=1, attention=(4,), dropout=0.5,
                     embedding="smooth", init_scale=1.0, checkpointing=checkpointing).train()  # fmt: skip
        torch.manual_seed(4)
        net(x, torch.zeros(2)).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_one_level_for_all_is_embedded_once():
    net = randomised(NCSNpp((1, 8, 8), width=8, multipliers=(1, 1), blocks=1, attention=(4,)))
    x, c = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(net(x, c.expand(3)), net(x, c.repeat(3)))


def test_y_reaches_the_output():
    net = randomised(NCSNpp((1, 8, 8), width=8, multipliers=(1, 1), blocks=1, condition=3, embedding="none"))
    x, c, y = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), torch.eye(3).double()
    assert not torch.allclose(net(x, c, y[:1]), net(x, c, y[1:2]))
    with pytest.raises(ValueError, match="network is one of p"):
        net(x, c)


@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
def test_at_init_scale_0_the_output_starts_at_0(progressive):
    net = NCSNpp((1, 8, 8), width=8, multipliers=(1, 2), attention=(), progressive=progressive, init_scale=0.0)
    assert not net(torch.randn(2, 1, 8, 8), torch.zeros(2)).any()


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"shape": (2,)}, "model=ncsnpp takes images"),
        ({"width": 7}, "`width`=7 must be even and at least 4"),
        ({"multipliers": []}, r"`multipliers`=\[\] must be whole numbers from 1"),
        ({"blocks": 0}, "`blocks`=0 must be at least 1"),
        ({"heads": 3}, "`heads`=3 must divide the 16 channels"),
        ({"dropout": 1.0}, r"`dropout`=1.0 must lie in \[0, 1\)"),
        ({"init_scale": -1.0}, "`init_scale`=-1.0 must not be negative"),
        ({"data_range": 0.0}, "`data_range`=0.0 must be positive"),
        ({"fir_kernel": [1.0]}, r"`fir_kernel`=\[1.0\] must be two taps or more"),
        ({"clock": Clock(make_sde("vp"))}, "`clock` is for `embedding`=positional, and this is fourier"),
        ({"embedding": "fuorier"}, "`embedding`=fuorier must be fourier, positional, smooth or none"),
    ],
)
def test_mistakes(keys, says):
    with pytest.raises(ValueError, match=says):
        NCSNpp(**{"shape": (1, 8, 8), "width": 8, "multipliers": (1, 2), "attention": (4,)} | keys)


@pytest.mark.parametrize(
    "keys, says",
    [
        ({"condition": 2}, "the published layout has no conditional networks"),
        ({"embedding": "smooth"}, "has no model.embedding=smooth"),
        ({"heads": 2}, "has one attention head"),
    ],
)
def test_what_the_published_layout_does_not_know(keys, says):
    with pytest.raises(ValueError, match=says):
        layout(NCSNpp((1, 8, 8), width=8, multipliers=(1,), attention=(8,), **keys))


@pytest.mark.parametrize("width, groups", [(4, 32), (48, 32), (32, 5), (32, 64), (6, 9), (30, 7)])
def test_the_width_that_a_refusal_names_is_accepted(width, groups):
    keys = {"shape": (1, 4, 4), "multipliers": (1,), "blocks": 1, "embedding": "positional", "groups": groups}
    with pytest.raises(ValueError, match=f"`groups`={groups} must divide `width`={width}") as caught:
        NCSNpp(**keys, width=width)
    NCSNpp(**keys, width=int(str(caught.value).split("Type `width`=")[1].split(",")[0]))
