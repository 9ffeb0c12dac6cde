"""Tests of the U-Nets and DiT: their layers, images of any size, y, and the memory that checkpointing saves."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from scoresde.conf.assemble import settle
from scoresde.conf.identity import identity_of
from scoresde.conf.schema import build
from scoresde.data import Data
from scoresde.models import ADM, DiT, NCSNpp, UNet, magnitude
from scoresde.models.adm import MagnitudeAttention, MagnitudeBlock
from scoresde.models.dit import Block, positions
from scoresde.models.embedding import PixelFeatures
from scoresde.models.magnitude import Map

from .conftest import PARAMETERISATIONS, compose
from .test_ncsnpp import randomised

SMALL = {
    "unet": lambda shape, **keys: UNet(shape, channels=(8, 16), attention=(4, 5), **keys),
    "unet, features": lambda shape, **keys: UNet(
        shape, channels=(8, 16), attention=(4, 5), pixel_features=(4, 1), pixel_unit=1.5, **keys
    ),
    "adm": lambda shape, **keys: ADM(shape, channels=(8, 16), blocks=1, attention=(4, 5), head_channels=4, **keys),
    "edm2": lambda shape, **keys: ADM(
        shape, channels=(8, 16), blocks=1, attention=(4, 5), head_channels=4, magnitude_preserving=True, **keys
    ),
    "dit": lambda shape, **keys: DiT(shape, width=16, depth=2, heads=2, **keys),
    "ncsnpp": lambda shape, **keys: NCSNpp(
        shape, width=8, multipliers=(1, 1), blocks=1, attention=(4, 5), embedding="smooth", **keys
    ),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9)])
def test_any_height_and_width(name, size):
    """Each output pixel depends on every pixel of its own image, and on no other image."""
    net = randomised(SMALL[name]((2, *size)))
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([-0.5, 0.4], dtype=torch.float64)
    out = net(x, c)
    assert out.shape == x.shape
    (gradient,) = torch.autograd.grad(out[0, 0, -1, -1], x, retain_graph=True)
    assert bool((gradient[0] != 0).all()) and not gradient[1].any()
    torch.testing.assert_close(net(x[1:], c[1:]), out[1:])
    torch.testing.assert_close(net(x, c[:1].expand(2))[0], out[0])


@pytest.mark.parametrize("name", SMALL)
def test_y_reaches_the_output(name):
    net, y = randomised(SMALL[name]((1, 4, 6), condition=3)), torch.eye(3, dtype=torch.float64)
    x, c = torch.randn(2, 1, 4, 6, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    both = net(x, c, y[:2])
    torch.testing.assert_close(both[1:], net(x[1:], c[1:], y[1:2]))
    assert not torch.allclose(both, net(x, c, y[2:]))


@pytest.mark.parametrize("name", SMALL)
def test_checkpointing_changes_no_gradient(name):
    """Recomputed blocks have the same dropout and gradients, and store less."""
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        net = SMALL[name]((1, 8, 8), checkpointing=checkpointing, dropout=0.5).train()
        for parameter in net.parameters():
            parameter.data += 0.1
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            torch.manual_seed(4)
            loss = net(torch.randn(4, 1, 8, 8), torch.zeros(4)).square().sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
        kept.append(sum(sizes))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # EDM2 normalises its weights again
    assert kept[1] < 0.6 * kept[0]


# --- magnitudes -------------------------------------------------------------------------------------------------------


def mean_square(x) -> float:
    return float(x.detach().square().mean())


def test_each_layer_keeps_magnitudes():
    a, b = torch.randn(64, 32, 16, 16), torch.randn(64, 16, 16, 16)
    assert mean_square(magnitude.silu(a)) == pytest.approx(1, abs=0.01)
    assert mean_square(magnitude.blend(a, torch.randn_like(a), 0.3)) == pytest.approx(1, abs=0.01)
    assert mean_square(magnitude.normalised(3 * a, [1])) == pytest.approx(1, abs=0.001)
    for t in (0.5, 0.2):
        both = magnitude.concatenated(a, b, t)
        assert mean_square(both) == pytest.approx(1, abs=0.01)
        shares = both[:, 32:].square().sum() / both.square().sum()
        assert float(shares) == pytest.approx(t**2 / (t**2 + (1 - t) ** 2), abs=0.01)
    for layer, x in ((Map(32, 64, 3), a), (Map(32, 64, 1), a), (Map(32, 64), a[:, :, 0, 0])):
        with torch.no_grad():
            layer.weight *= 7  # has no effect
        y = layer(x)[..., 1:-1, 1:-1] if x.ndim == 4 else layer(x)
        assert mean_square(y) == pytest.approx(1, abs=0.1)


def test_weights_are_brought_to_length_in_training_alone():
    layer = Map(6, 5, 3)
    with torch.no_grad():
        layer.weight *= 4
    before, x = layer.weight.clone(), torch.randn(1, 6, 4, 4)
    evaluated = layer.eval()(x)
    assert torch.equal(layer.weight, before)
    trained = layer.train()(x)
    lengths = layer.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), math.sqrt(54)), rtol=1e-3, atol=0)
    torch.testing.assert_close(trained, evaluated, rtol=1e-3, atol=1e-4)
    expected = functional.conv2d(x, before / before.flatten(1).norm(dim=1)[:, None, None, None], padding=1)
    torch.testing.assert_close(evaluated, expected, rtol=1e-3, atol=1e-4)


def test_gradients_stand_at_right_angles_to_their_weights():
    """The output does not depend on the length of a weight, whose gradient therefore is 0 along it."""
    layer = Map(6, 5, 3).eval()
    layer(torch.randn(2, 6, 4, 4)).pow(3).sum().backward()
    along = (layer.weight.grad * layer.weight).flatten(1).sum(1)
    size = layer.weight.grad.flatten(1).norm(dim=1) * layer.weight.flatten(1).norm(dim=1)
    assert float((along / size).detach().abs().max()) < 1e-3


def test_magnitudes_stay_through_the_whole_network():
    """With random weights the output of every block has a mean square near one, at any depth."""
    net = ADM((3, 16, 16), channels=(32, 64), blocks=3, attention=(8,), magnitude_preserving=True).eval()
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, MagnitudeBlock | MagnitudeAttention):
            module.register_forward_hook(lambda _, inputs, out, name=name: found.update({name: mean_square(out)}))
    net(torch.randn(8, 3, 16, 16), torch.linspace(-1, 1, 8))
    assert len(found) > 15 and all(0.6 < each < 1.5 for each in found.values()), found


def test_a_magnitude_network_has_no_bias_and_no_norm():
    net = ADM((3, 16, 16), channels=(8, 8), magnitude_preserving=True, attention=())
    own = [n for n, p in net.named_parameters() if not n.startswith("noise") and not n.endswith(("weight", "gain"))]
    assert not own and not any(isinstance(module, nn.GroupNorm) for module in net.modules())


def test_a_magnitude_block_by_its_formula():
    """A decoder block that changes the width and doubles the resolution, against its formulas."""
    block = randomised(MagnitudeBlock(4, 6, 5, 0.0, 64, "up", decoder=True))
    x, told = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)

    def unit(w):
        return w / w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.ndim - 1))

    wide = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = functional.conv2d(functional.silu(wide) / 0.596, unit(block.conv_1.weight), padding=1)
    h = h * (1 + block.gain * told @ unit(block.told.weight).T)[:, :, None, None]
    h = functional.conv2d(functional.silu(h) / 0.596, unit(block.conv_2.weight), padding=1)
    short = functional.conv2d(wide, unit(block.shortcut.weight))
    expected = (0.7 * short + 0.3 * h) / math.sqrt(0.7**2 + 0.3**2)
    torch.testing.assert_close(block(x, told, torch.Size((6, 6))), expected, rtol=2e-3, atol=2e-3)  # eps of 1e-4


# --- DiT --------------------------------------------------------------------------------------------------------------


def test_patches_go_in_and_come_out_in_place():
    """Tokens that are not changed become their own patches again."""
    net = DiT((2, 4, 6), patch=2, width=8, depth=1, heads=1).double()
    with torch.no_grad():
        net.places.zero_()
        net.first.weight.copy_(torch.eye(8).reshape(8, 2, 2, 2))
        net.first.bias.zero_()
        net.last.weight.copy_(torch.eye(8))
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    patches = functional.unfold(x, 2, stride=2)
    normal = functional.layer_norm(patches.transpose(1, 2), (8,), eps=1e-6).transpose(1, 2)
    expected = functional.fold(normal, (4, 6), 2, stride=2)
    torch.testing.assert_close(net(x, torch.zeros(1, dtype=torch.float64)), expected)


def test_a_block_of_dit_by_its_formula():
    block = randomised(Block(8, 2, 4.0, 0.0))
    h, told = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    shift, scale, gate, shift_2, scale_2, gate_2 = (
        each[:, None] for each in (told @ block.told.weight.T + block.told.bias).split(8, dim=1)
    )

    def normal(h):
        return (h - h.mean(2, keepdim=True)) / (h.var(2, correction=0, keepdim=True) + 1e-6).sqrt()

    q, k, v = (normal(h) * (1 + scale) + shift).matmul(block.qkv.weight.T).add(block.qkv.bias).split(8, dim=2)
    parts = []
    for i in (0, 4):
        weights = torch.softmax(q[..., i : i + 4] @ k[..., i : i + 4].transpose(1, 2) / 2, dim=2)
        parts.append(weights @ v[..., i : i + 4])
    h_1 = h + gate * block.out(torch.cat(parts, 2))
    expected = h_1 + gate_2 * block.perceptron(normal(h_1) * (1 + scale_2) + shift_2)
    torch.testing.assert_close(block(h, told), expected)


def test_places_are_all_different():
    found = positions(5, 7, 16)
    assert found.shape == (35, 16)
    assert float((torch.cdist(found, found) + 9 * torch.eye(35)).min()) > 0.1
    assert torch.equal(found[0], torch.tensor([0.0] * 4 + [1.0] * 4 + [0.0] * 4 + [1.0] * 4))
    assert found[3, 0] == pytest.approx(math.sin(3)) and found[7, 8] == pytest.approx(math.sin(1))  # column, row


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: ADM((2,)), "model=adm takes images"),
        (lambda: ADM((1, 8, 8), channels=()), r"`channels`=\[\]"),
        (
            lambda: ADM((1, 8, 8), channels=(48,), head_channels=32),
            "`head_channels`=32 must divide .*type `head_channels`=48",
        ),
        (lambda: ADM((1, 8, 8), dropout=1.0), r"`dropout`=1.0 must lie in \[0, 1\)"),
        (lambda: DiT((2,)), "model=dit takes images"),
        (lambda: DiT((1, 8, 8), width=10), "`width`=10 must be a multiple of 4 and of `heads`=4"),
        (lambda: DiT((1, 8, 8), patch=0), "`patch`=0 must be at least 1"),
        (lambda: DiT((1, 8, 8), ratio=0.0), "`ratio`=0.0 must be positive"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# --- features of pixels -----------------------------------------------------------------------------------------------


def test_features_of_pixels_are_what_the_noise_leaves_on_average():
    """The features are the image and E cos(2 pi f (x + k z)) over z, by Gauss-Hermite quadrature with 60 nodes."""
    features = PixelFeatures([0.7, 2.0], unit=1.6).double()
    x, k = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 2, 3, 2), torch.tensor([0.05, 0.3])
    found = features(1.6 * x, k.double().log() / 4)
    assert found.shape == (2, 10, 3, 2) and torch.equal(found[:, :2], 1.6 * x)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(60))
    noisy = x + k.double().reshape(1, 2, 1, 1, 1) * nodes.reshape(-1, 1, 1, 1, 1)
    for i, f in enumerate((0.7, 2.0)):
        for start, wave in ((2, torch.cos), (6, torch.sin)):
            mean = torch.einsum("n,nbchw->bchw", weights / weights.sum(), wave(2 * math.pi * f * noisy))
            torch.testing.assert_close(found[:, start + 2 * i : start + 2 * i + 2], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("words", [(row,) for row in PARAMETERISATIONS] + [("noise", "parameterisation.input=${sde}")])
def test_auto_is_one_turn_a_bin_whatever_the_network_is_given(words):
    """All greys share the finest feature, and neighbouring greys have opposite values of the next."""
    greys = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    data = Data(torch.cat([greys, greys.flip(2)]), greys, 128, 128, levels=256, shuffle=False)
    cfg = compose("data=digits", "sde.sigma_max=auto", f"parameterisation={words[0]}", *words[1:])
    cfg["model"]["pixel_features"] = "auto"
    cfg = settle(cfg, data, "cpu")
    assert cfg["model"]["pixel_features"] == [128, 64, 32, 8, 2]
    net = build(cfg["model"], "model").double()
    values = data.encode(data.dequantise(data.train, torch.full(data.train.shape, 0.5))).double()
    k = torch.tensor(1e-6, dtype=torch.float64)
    c_in = build(cfg["parameterisation"], "parameterisation").coefficients(torch.ones_like(k), k)[2]
    found = net.pixels(c_in * values, (k.log() / 4)[None]).flatten(2)
    torch.testing.assert_close(found[0, 1], found[0, 1, :1].expand(256), rtol=0, atol=1e-2)
    torch.testing.assert_close(found[0, 2, 1:], -found[0, 2, :-1], rtol=0, atol=1e-2)


def test_auto_is_for_integers():
    with pytest.raises(ValueError, match=r"pixel_features=auto tells .* integer.*leave it out, or type data.levels=L"):
        settle(
            compose("data=digits", "model.pixel_features=auto"),
            Data(*torch.randn(2, 4, 1, 8, 8), 0.0, 1.0, shuffle=False),
            "cpu",
        )
    for keys, message in (
        ({"pixel_features": (0.0,)}, r"`pixel_features`=\[0.0\] must lie in \(0, 1e6\]"),
        ({"pixel_features": (1e39,)}, "`pixel_features`"),
        ({"pixel_unit": 0.0}, "`pixel_unit`=0.0 must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            UNet((1, 8, 8), channels=(8,), **keys)


def test_keys_that_decide_no_weight_rename_no_network():
    data = Data(*torch.randint(0, 17, (2, 4, 1, 8, 8)), 8.0, 8.0, levels=17, shuffle=False)

    def named(*words):
        cfg = settle(compose("data=digits", *words), data, "cpu")
        return identity_of(cfg, data)["model"]

    keys = {"_target_", "shape", "channels", "blocks", "attention", "heads", "dropout"}
    assert set(named()) == keys  # without the keys that were added later
    assert named("model.checkpointing=true") == named("model.pixel_unit=7") == named()
    assert named("model=energy_unet", "model.net.checkpointing=true") == named("model=energy_unet")
    for model in ("adm", "dit", "ncsnpp"):  # which have had the key from the start
        assert named(f"model={model}")["checkpointing"] is False
        assert named(f"model={model}", "model.checkpointing=true") == named(f"model={model}")
    assert set(named("model.pixel_features=[4]")) == keys | {"pixel_features", "pixel_unit"}
