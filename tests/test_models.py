"""Tests of parameterisations, with networks that return the exact target, and of the MLP, the U-Net and energies."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from scoresde.conf import schema
from scoresde.models import EDM, MLP, Denoiser, EnergyGradient, Noise, Oracle, Score, ScoreModel, UNet, Velocity
from scoresde.models.embedding import FourierFeatures, NoiseEmbedding
from scoresde.sde_lib import Counted, affine

from .conftest import (
    PARAMETERISATIONS,
    SDES,
    GaussianScore,
    choices,
    draw_mixture,
    kind,
    make,
    make_sde,
    mixture,
    per_sample,
)

KINDS = [kind("parameterisation", name) for name in PARAMETERISATIONS]


def row(kind, sigma_data=0.6):
    """Returns a parameterisation, with an s_d other than 1 if it has one."""
    return kind(
        **({"sigma_data": sigma_data} if "sigma_data" in {field.name for field in dataclasses.fields(kind)} else {})
    )


# The target of each parameterisation, from the clean data D, the noise z, alpha, sigma and s_d (arXiv 2006.11239,
# 2202.00512, 2206.00364).
TARGETS = {
    "Unscaled": lambda D, z, alpha, sigma, s_d: -alpha * z / sigma,  # the score of x/alpha
    "Score": lambda D, z, alpha, sigma, s_d: -z,  # sigma times the score
    "Noise": lambda D, z, alpha, sigma, s_d: z,
    "Denoiser": lambda D, z, alpha, sigma, s_d: D,
    "Velocity": lambda D, z, alpha, sigma, s_d: (alpha * z - sigma * D) / (alpha**2 + sigma**2).sqrt(),
    # EDM's (D - c_skip y) / c_out of y = x/alpha with noise r = sigma/alpha, where c_skip = s_d^2/(s_d^2 + r^2) and
    # c_out = r s_d / sqrt(s_d^2 + r^2)
    "EDM": lambda D, z, alpha, sigma, s_d: (
        (D - s_d**2 / (s_d**2 + (sigma / alpha) ** 2) * (D + sigma / alpha * z))
        / (sigma / alpha * s_d)
        * (s_d**2 + (sigma / alpha) ** 2).sqrt()
    ),
}


class Exact(nn.Module):
    """A network that returns the exact target at (x, t), and records its inputs."""

    def __init__(self, sde, oracle, name, s_d, x, t):
        super().__init__()
        alpha, sigma = per_sample(sde.alpha(t), x), per_sample(sde.sigma(t), x)
        z = -sigma * oracle(x, t)  # E[z | x_t]
        self.target = TARGETS[name]((x - sigma * z) / alpha, z, alpha, sigma, s_d)

    def forward(self, x, c):
        self.seen = x, c
        return self.target


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_every_row_has_a_target(name):
    assert type(make("parameterisation", f"parameterisation={name}")).__name__ in TARGETS


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_target_gives_the_exact_score(sde, shape, kind):
    t = torch.linspace(sde.eps, sde.T, 8, dtype=torch.float64)
    x = sde.perturb(draw_mixture(mixture(shape), 8, shape), t, torch.randn(8, *shape, dtype=torch.float64))
    oracle = Oracle(sde, mixture(shape))
    net = Exact(sde, oracle, kind.__name__, 0.6, x, t)
    score, exact = ScoreModel(sde, net, row(kind))(x, t), oracle(x, t)
    torch.testing.assert_close(
        score, exact, rtol=1e-6, atol=1e-8 * float(exact.abs().max())
    )  # subVP's sigma is 1e-4 at eps

    alpha, sigma = sde.alpha(t), sde.sigma(t)
    s_d = 0.6 if kind is EDM else 1.0
    torch.testing.assert_close(
        net.seen[0], x / per_sample((alpha**2 * s_d**2 + sigma**2).sqrt(), x), rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(net.seen[1], (sigma / alpha).log() / 4, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind, unit", [(Score, 1.0), (Noise, 1.0), (Velocity, 1.0), (EDM, 0.6)])
def test_input_and_target_have_unit_variance(sde, kind, unit):
    """For data of std s_d the input and the target of the network have unit variance."""
    t = torch.linspace(sde.eps, sde.T, 5, dtype=torch.float64)[:, None].expand(5, 20000)
    D, z = unit * torch.randn(5, 20000, dtype=torch.float64), torch.randn(5, 20000, dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    c_in = row(kind).coefficients(alpha, sigma)[2]
    assert float(((c_in * (alpha * D + sigma * z)).var(1) - 1).abs().max()) < 0.06
    assert float((TARGETS[kind.__name__](D, z, alpha, sigma, unit).var(1) - 1).abs().max()) < 0.06


def networks(shape):
    if len(shape) == 1:
        net = MLP(shape, width=16, depth=2, fourier=4)
    else:
        net = UNet(shape, channels=(8, 8), attention=(4,), heads=2)
    return trained(net)


def trained(net: nn.Module, seed=0) -> nn.Module:
    """Returns a network whose weights are all random, also those that are initialised with zeros."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = (
            0.3 * torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5
            + (parameter.ndim == 1) * 0.1
        )
    return net.double().eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [name for name in SDES if name != "ve"])
def test_one_network_under_two_sdes(shape, kind, other):
    """At one noise-to-signal ratio the x of two SDEs differ by the factor alpha only, and the denoised data are the
    same.
    """
    net, first, second = networks(shape), make_sde("ve"), make_sde(other)
    half_log_snr = -torch.tensor([0.03, 0.3, 1.0, 3.0], dtype=torch.float64).log()
    x = torch.randn(4, *shape, dtype=torch.float64) * per_sample(
        (1 + torch.exp(-2 * half_log_snr)).sqrt(), torch.zeros(4, *shape)
    )
    found = []
    for sde in (first, second):
        t = sde.time(half_log_snr)
        found.append(sde.denoise(ScoreModel(sde, net, row(kind)), x * per_sample(sde.alpha(t), x), t))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_expanded_times(sde, shape, kind, precision):
    """One time that is expanded to the batch gives the same score as a separate time for each sample."""
    model = ScoreModel(sde, networks(shape).to(precision), row(kind))
    x = torch.randn(5, *shape, dtype=precision)
    for share in (0.01, 0.4, 1.0):
        t = torch.full((1,), sde.eps + share * (sde.T - sde.eps), dtype=precision)
        expanded, written = model(x, t.expand(5)).detach(), model(x, t.repeat(5)).detach()
        torch.testing.assert_close(
            expanded,
            written,
            rtol=1e-12 if precision == torch.float64 else 1e-5,
            atol=1e-6 * float(written.abs().max()),
        )
    assert model(x[:1], t.expand(1)).shape == x[:1].shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("A, C", [(0.0, 1.0), (1.3, 0.2), (-0.4, -2.0)])
def test_affine_is_x_and_the_score_combined(sde, shape, kind, A, C):
    """A x + C score at a plain number t, whether it was announced or not, counted once either way."""
    model = Counted(ScoreModel(sde, networks(shape), row(kind)))
    x, announced = torch.randn(5, *shape, dtype=torch.float64), [sde.eps, 0.4 * sde.T]
    evaluate = affine(model, announced)
    for calls, t in enumerate([*announced, 0.9 * sde.T], start=1):
        expected = A * x + C * model.score(x, torch.full((5,), t, dtype=torch.float64))
        scale = max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(evaluate(x, t, A, C), expected, rtol=1e-9, atol=1e-11 * scale)
        assert model.calls == calls and model.evaluations == 5 * calls


def test_one_time_a_sample(shape):
    model = ScoreModel(make_sde("vp"), networks(shape), Noise())
    with pytest.raises(ValueError, match="one time a sample"):
        model(torch.zeros(3, *shape, dtype=torch.float64), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("energy", [False, True])
def test_the_initial_edm_model_is_the_gaussian_score(sde, shape, dtype, energy):
    """An untrained network is zero: the score is that of N(0, s_d^2 I), -x / (alpha^2 s_d^2 + sigma^2), at every noise
    level.
    """
    net = MLP(shape, width=16) if len(shape) == 1 else UNet(shape, channels=(8, 8))
    model = ScoreModel(sde, EnergyGradient(net) if energy else net, EDM(0.6)).to(dtype)
    t = torch.linspace(sde.eps, sde.T, 5, dtype=dtype)
    x = torch.randn(5, *shape, dtype=dtype)
    score = model(x, t)
    assert score.dtype == dtype
    torch.testing.assert_close(
        score.detach(), GaussianScore(sde, 0.0, 0.6)(x, t), rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0
    )


@pytest.mark.parametrize("name", [name for name in choices("model") if name != "oracle"])
def test_every_network_starts_as_the_gaussian_score(name):
    """The same for the network of every yaml, with its own sizes, for the shapes that it takes."""
    sde, taken = make_sde("vp"), 0
    for shape in ((2,), (3, 8, 6)):
        try:
            net = make("model", f"model={name}", shape=shape)
        except (ValueError, TypeError):
            continue
        taken += 1
        model = ScoreModel(sde, net, EDM(0.6)).double()
        x, t = torch.randn(3, *shape, dtype=torch.float64), torch.linspace(0.01, 1, 3, dtype=torch.float64)
        torch.testing.assert_close(model(x, t).detach(), GaussianScore(sde, 0.0, 0.6)(x, t), rtol=1e-12, atol=0)
    assert taken == 2 if name == "auto" else taken


# --- networks ---------------------------------------------------------------------------------------------------------

SIZES = [(1, 8, 8), (3, 8, 6), (2, 7, 5), (1, 5, 9), (4, 3, 3), (1, 1, 6)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attention", [(), (4, 8, 7), (2, 3)])
def test_unet_of_any_size_treats_each_image_by_itself(size, attention):
    net = trained(UNet(size, channels=(8, 12, 16), blocks=2, attention=attention, heads=2))
    x, c = torch.randn(5, *size, dtype=torch.float64), torch.linspace(-1.5, 1, 5, dtype=torch.float64)
    whole = net(x, c)
    assert whole.shape == x.shape
    for i in range(5):
        torch.testing.assert_close(net(x[i : i + 1], c[i : i + 1])[0], whole[i], rtol=1e-10, atol=1e-10)
    assert float((whole[0] - net(x, c.flip(0))[0]).detach().abs().max()) > 1e-6  # the output depends on the noise level
    (gradient,) = torch.autograd.grad(net(x.requires_grad_(), c)[0, 0, 0, 0], x)
    assert float(gradient[0].abs().max()) > 0 and float(gradient[1:].abs().max()) == 0  # and on no other sample


def test_mlp_treats_each_vector_by_itself():
    for dim in (1, 2, 5):
        net = trained(MLP((dim,), width=16, depth=3, fourier=4))
        x, c = torch.randn(5, dim, dtype=torch.float64), torch.linspace(-1.5, 1, 5, dtype=torch.float64)
        whole = net(x, c)
        for i in range(5):
            torch.testing.assert_close(net(x[i : i + 1], c[i : i + 1])[0], whole[i], rtol=1e-10, atol=1e-12)
        assert float((whole[0] - net(x, c.flip(0))[0]).detach().abs().max()) > 1e-6


def test_mlp_by_hand():
    """The network computes h <- silu(W h + b + shift(c)) from the features [x, cos, sin]."""
    net = trained(MLP((2,), width=6, depth=2, fourier=3))
    x, c = torch.randn(4, 2, dtype=torch.float64), torch.linspace(-1, 1, 4, dtype=torch.float64)
    silu = nn.functional.silu
    angle = x @ net.features.directions
    h = torch.cat([x, angle.cos(), angle.sin()], dim=1)
    phase = c[:, None] * net.noise.frequencies
    noise = silu(torch.cat([phase.cos(), phase.sin()], 1) @ net.noise.mix.weight.T + net.noise.mix.bias)
    shifts = noise @ net.shifts.weight.T
    for i, layer in enumerate(net.layers):
        h = silu(h @ layer.weight.T + layer.bias + shifts[:, 6 * i : 6 * i + 6])
    torch.testing.assert_close(net(x, c), h @ net.last.weight.T + net.last.bias)


def test_attention_stands_where_its_resolution_is():
    """Attention is chosen by the longer side: images of 8 x 6 have levels of length 8, 4 and 2."""
    from scoresde.models.unet import Attention

    for attention, expected in (((8,), {8}), ((4,), {4}), ((2,), {2}), ((6, 3), set()), ((8, 2), {8, 2})):
        net, sides = UNet((3, 8, 6), channels=(8, 8, 8), attention=attention), set()
        for module in net.modules():
            if isinstance(module, Attention):
                module.register_forward_pre_hook(
                    lambda module, inputs, sides=sides: sides.add(max(inputs[0].shape[-2:]))
                )
        net(torch.zeros(1, 3, 8, 6), torch.zeros(1))
        assert sides == expected


def test_attention_by_hand():
    """Attention computes softmax(q k / sqrt(d)) v over the pixels for each head."""
    from scoresde.models.unet import Attention

    layer = trained(Attention(8, 2))
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64)
    qkv = layer.qkv(layer.norm(x)).flatten(2)  # (B, 3 * 8, pixels)
    q, k, v = qkv[:, :8], qkv[:, 8:16], qkv[:, 16:]
    heads = []
    for rows in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(torch.einsum("bcp,bcq->bpq", q[:, rows], k[:, rows]) / 2.0, dim=2)
        heads.append(torch.einsum("bpq,bcq->bcp", weights, v[:, rows]))
    torch.testing.assert_close(layer(x), x + layer.out(torch.cat(heads, 1).reshape(x.shape)), rtol=1e-10, atol=1e-12)


def test_dropout_is_off_in_evaluation():
    for net, shape in (
        (MLP((2,), width=16, dropout=0.5), (2,)),
        (UNet((1, 6, 5), channels=(8, 8), dropout=0.5), (1, 6, 5)),
    ):
        net = trained(net)
        x, c = torch.randn(3, *shape, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        assert torch.equal(net(x, c), net(x, c))
        net.train()
        assert not torch.equal(net(x, c), net(x, c))


def test_fourier_features():
    features = FourierFeatures(3, 20000, 0.5)
    std = features.directions.std() / (2 * math.pi)
    assert float(std) == pytest.approx(0.5, rel=0.02) and features.width == 3 + 40000
    assert "directions" in features.state_dict()  # random, and so saved in checkpoints


def test_noise_levels_are_told_apart():
    """The periods of c_noise = log(sigma)/4 lie between 16 and 2, and the features resolve 1 % of sigma in float64."""
    embedding = NoiseEmbedding(8).double()
    assert float(embedding.frequencies.max()) == pytest.approx(2 * math.pi / 2, rel=1e-6)
    assert float(embedding.frequencies.min()) == pytest.approx(2 * math.pi / 16, rel=1e-6)
    assert "frequencies" in embedding.state_dict()  # the weights are of use with these frequencies only
    levels = torch.linspace(-2.3, 1, 4 * 330, dtype=torch.float64)
    angle = levels[:, None] * embedding.frequencies
    features = torch.cat([angle.cos(), angle.sin()], dim=1)
    apart = torch.cdist(features, features) + torch.eye(len(levels))
    assert 1e-3 < float(apart.min()) and float(apart.diagonal(1).max()) < 0.02


# --- energy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3,), (1, 3, 2)])
def test_energy_gradient(size):
    """F = -grad E, with E by hand; its Jacobian is symmetric and minus the Hessian of E."""
    dim = math.prod(size)
    inner = trained(
        MLP(size, width=8, depth=2, fourier=2)
        if len(size) == 1
        else UNet(size, channels=(8, 8), attention=(3,), heads=2)
    )
    net, x, c = (
        EnergyGradient(inner),
        torch.randn(4, *size, dtype=torch.float64),
        torch.linspace(-1, 1, 4, dtype=torch.float64),
    )
    value = inner(x, c).flatten(1)
    torch.testing.assert_close(
        net.energy(x, c), -(x.flatten(1) * value).sum(1) / dim**0.5 + (value**2).sum(1) / (2 * dim**0.5)
    )
    for i in range(4):
        energy = lambda u: net.energy(u[None], c[i : i + 1])[0]  # noqa: E731, B023
        torch.testing.assert_close(
            net(x, c)[i], -torch.autograd.functional.jacobian(energy, x[i]), rtol=1e-9, atol=1e-11
        )
        field = lambda u: net(u[None], c[i : i + 1])[0]  # noqa: E731, B023
        jacobian = torch.autograd.functional.jacobian(field, x[i]).reshape(dim, dim)
        hessian = torch.autograd.functional.hessian(energy, x[i]).reshape(dim, dim)
        torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(jacobian, -hessian, rtol=1e-9, atol=1e-11)


def test_energy_without_and_with_gradients():
    """Under no_grad the values are the same and have no graph; with gradients on, the weights get gradients."""
    net = EnergyGradient(trained(MLP((2,), width=8)))
    x, c = torch.randn(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        quiet = net(x, c)
        assert torch.equal(quiet, net(x.clone().requires_grad_(), c))
    assert not quiet.requires_grad
    loud = net(x, c)
    assert torch.equal(loud, quiet)
    weight = net.net.layers[0].weight
    (gradient,) = torch.autograd.grad(loud.square().sum(), weight)
    step, direction = 1e-6, torch.randn_like(weight)
    with torch.no_grad():
        weight += step * direction
        up = net(x, c).square().sum()
        weight -= 2 * step * direction
        down = net(x, c).square().sum()
    assert float((gradient * direction).sum()) == pytest.approx(float(up - down) / (2 * step), rel=1e-5)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MLP((1, 8, 8)), "model=unet"),
        (lambda: MLP((2,), width=0), "`width`=0"),
        (lambda: MLP((2,), depth=0), "`depth`=0"),
        (lambda: MLP((2,), fourier=-1), "`fourier`=-1"),
        (lambda: MLP((2,), dropout=1.0), "`dropout`=1.0"),
        (lambda: UNet((2,)), "model=mlp"),
        (lambda: UNet((1, 8, 8), channels=[]), "`channels`="),
        (lambda: UNet((1, 8, 8), blocks=0), "`blocks`=0"),
        (lambda: UNet((1, 8, 8), dropout=-0.1), "`dropout`=-0.1"),
        (lambda: UNet((1, 8, 8), heads=3), "`heads`=3"),
        (lambda: UNet((1, 8, 8), heads=0), "`heads`=0"),
        (lambda: EDM(0.0), "`sigma_data`=0.0"),
        (lambda: EDM(math.nan), "`sigma_data`=nan"),
    ],
)
def test_bad_arguments_name_the_key(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_rows_by_name():
    assert {kind.__name__ for kind in KINDS} >= {kind.__name__ for kind in (Score, Noise, Denoiser, Velocity, EDM)}


IMAGE, POINT = {"shape": [1, 8, 8]}, {"shape": [2]}


@pytest.mark.parametrize(
    "target, keys, key",
    [
        *(("MLP", POINT | {name: -1}, name) for name in ("width", "depth", "fourier", "dropout")),
        ("MLP", POINT | {"embedding": "fourier"}, "embedding"),
        *(("UNet", IMAGE | {name: value}, name) for name, value in [("channels", []), ("blocks", 0), ("heads", 3)]),
        ("UNet", IMAGE | {"dropout": 1.0}, "dropout"),
        ("UNet", IMAGE | {"pixel_features": [0.0]}, "pixel_features"),
        ("UNet", IMAGE | {"pixel_unit": 0.0}, "pixel_unit"),
        *(("ADM", IMAGE | {name: value}, name) for name, value in [("channels", []), ("head_channels", 0)]),
        ("ADM", IMAGE | {"dropout": 1.0}, "dropout"),
        *(("DiT", IMAGE | {name: 0}, name) for name in ("patch", "depth", "heads", "width", "ratio")),
        ("RefineNet", IMAGE | {"channels": 0}, "channels"),
        *(("NCSNpp", IMAGE | {name: -1}, name) for name in ("width", "blocks", "heads", "dropout", "init_scale")),
        *(("NCSNpp", IMAGE | {name: -1}, name) for name in ("groups", "data_range")),
        *(("NCSNpp", IMAGE | {name: []}, name) for name in ("multipliers", "fir_kernel")),
        ("NCSNpp", IMAGE | {"width": 6, "heads": 5, "attention": [8]}, "heads"),
        ("NCSNpp", IMAGE | {"clock": {"_target_": "models.Clock", "sde": {"_target_": "sde_lib.VP"}}}, "clock"),
        *(("MLPClassifier", POINT | {"classes": 3, name: -1}, name) for name in ("width", "depth", "fourier")),
        ("UNetClassifier", IMAGE | {"classes": 3, "channels": []}, "channels"),
        ("UNetClassifier", IMAGE | {"classes": 3, "dropout": 1.0}, "dropout"),
        ("FeatureCNN", IMAGE | {"classes": 3, "channels": []}, "channels"),
        ("FeatureCNN", IMAGE | {"classes": 3, "dropout": 1.0}, "dropout"),
        *(("FeatureMLP", POINT | {"classes": 3, name: -1}, name) for name in ("width", "depth", "dropout")),
        ("EDM", {"sigma_data": 0.0}, "sigma_data"),
    ],
)
def test_a_refusal_names_the_key_in_full(target, keys, key):
    with pytest.raises(ValueError, match=rf"a\.b\.{key}\b") as caught:
        schema.build({"_target_": f"models.{target}", **keys}, "a.b")
    assert "`" not in str(caught.value)
