"""The random numbers of a training are the published generator's, of the right laws, and functions of the row alone."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from scoresde.models import ADM, MLP, DiT, NCSNpp, UNet
from scoresde.sde_lib import Ahead, Draws, Dropout, Masks
from scoresde.sde_lib.draws import AHEAD, GOLDEN, mix, signed, stream_of

M = (1 << 64) - 1
SHAPES = [(), (1,), (2,), (5,), (3, 7, 3)]


# The generator


def test_it_is_the_published_generator():
    """The first words of SplitMix64 from the seed 1234567, as every implementation prints them."""
    states = torch.tensor([signed(1234567 + GOLDEN * (i + 1)) for i in range(5)])
    words = [int(word) & M for word in mix(states)]
    assert words == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("shape", [(21,), (3, 5), (7,), (0,)], ids=str)
def test_words_do_not_depend_on_how_many_are_mixed_at_a_time(monkeypatch, shape):
    states = torch.arange(max(1, math.prod(shape)))[: math.prod(shape)].mul(signed(GOLDEN)).reshape(shape)
    whole = mix(states.clone())
    monkeypatch.setattr("scoresde.sde_lib.draws.CACHED", 7)
    assert torch.equal(mix(states.clone()), whole)
    assert torch.equal(mix(states.clone().t().contiguous().t()), whole)


def plain_mix(z: int) -> int:
    """The same bijection in whole numbers without bounds."""
    z &= M
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M
    z = (z ^ z >> 27) * 0x94D049BB133111EB & M
    return z ^ z >> 31


def by_hand(draws: Draws, stream: str, row: int, values: int) -> tuple[list[float], list[float]]:
    """The uniform numbers and the normals of one row, number by number, from the definition."""
    start, gamma = stream_of(draws.seed, draws.purpose, stream)
    key, width = plain_mix(start + GOLDEN * draws.step), -(-values // 2)
    words = [plain_mix(key + gamma * (row * width + i)) for i in range(width)]
    halves = [(word & 0xFFFFFFFF, word >> 32) for word in words]
    uniforms = [(half >> 8) / 2**24 for pair in halves for half in pair]
    lower, upper = ([half - (half >> 31 << 32) for half in side] for side in zip(*halves, strict=True))  # signed
    radii = [math.sqrt(-2 * math.log(abs(k + 0.5) / 2**31)) for k in upper]
    angles = [math.pi * k / 2**31 for k in lower]
    normals = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)]
    normals += [r * math.sin(a) for r, a in zip(radii, angles, strict=True)]
    return uniforms[:values], normals[:values]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed, step", [(0, 0), (7, 123_456), (2**63 - 1, 10**9)])
def test_numbers_are_those_of_the_definition(shape, seed, step):
    draws, like = Draws(seed, 40, step=step, first=29, count=11), torch.zeros(11, *shape)
    uniforms, normals = (law("noise", like).reshape(11, -1) for law in (draws.uniform, draws.normal))
    for row in (0, 4, 10):
        u, z = by_hand(draws, "noise", 29 + row, math.prod(shape))
        torch.testing.assert_close(uniforms[row], torch.tensor(u), rtol=0, atol=2**-23)
        torch.testing.assert_close(normals[row], torch.tensor(z), rtol=2e-6, atol=2e-6)


def test_streams_differ_in_each_of_their_parts():
    like = torch.zeros(50, 3)
    kinds = [Draws(0, 50), Draws(1, 50), Draws(0, 50, step=1), Draws(0, 50, purpose="held out"), Draws(10, 50)]
    drawn = [(draws.normal(stream, like)) for draws in kinds for stream in ("noise", "noise/1", "1")]
    assert len({tuple(z.flatten().tolist()) for z in drawn}) == 15
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert not set(a.flatten().tolist()) & set(b.flatten().tolist())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("law", ["normal", "uniform", "spread"])
def test_a_row_has_its_numbers_however_the_batch_is_cut(shape, law, monkeypatch):
    """In parts of any sizes, in any order of steps, one step at a time or many, in float32 and in float64."""
    monkeypatch.setitem(AHEAD, "cpu", 150)
    draw = lambda draws, x: getattr(draws, law)("noise", x)  # noqa: E731
    like = torch.zeros(37, *shape)
    whole = {step: draw(Draws(5, 37, step=step), like) for step in (0, 1, 2, 9, 700)}
    for cuts in ([0, 37], [0, 1, 37], [0, 5, 12, 36, 37], list(range(38))):
        ahead = Draws(5, 37, ahead=Ahead())
        for step in (0, 1, 2, 9, 1, 700, 2):
            parts = [ahead.at(step).part(a, b - a) for a, b in pairwise(cuts)]
            drawn = torch.cat([draw(each, like[: each.count]) for each in parts])
            assert torch.equal(drawn, whole[step])
            drawn.zero_()  # what is done with them is no matter to others
    double = draw(Draws(5, 37, step=9), like.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, whole[9].double(), rtol=0, atol=1e-7)
    if law == "normal":
        assert torch.equal(double, whole[9].double())
    assert draw(Draws(5, 37), like.byte()).dtype == torch.float32  # integers have no fractions


def test_draws_are_handed_out_to_write_into():
    draws, like = Draws(0, 4, ahead=Ahead()), torch.zeros(4, 2)
    first = draws.normal("noise", like)
    kept = first.clone()
    first.fill_(9.0)
    assert torch.equal(draws.normal("noise", like), kept)
    following = draws.at(1).normal("noise", like)
    following.fill_(9.0)
    assert not (draws.at(2).normal("noise", like) == 9).any()


def test_rows_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="a batch of 10 rows has no 5 rows from row 6 on"):
        Draws(0, 10, first=6, count=5)
    with pytest.raises(ValueError, match="a batch of 10 rows has no 8 rows from row 3 on"):
        Draws(0, 10).part(3, 8)
    with pytest.raises(ValueError, match="draws for 10 rows were asked for a batch of 9"):
        Draws(0, 10).normal("noise", torch.zeros(9, 2))


def test_fresh_draws_are_seeded_by_torchs_generator():
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append([Draws.afresh(5).normal("noise", torch.zeros(5, 2)) for _ in range(2)])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[2][0]) and not torch.equal(found[0][0], found[0][1])


# Their laws. Each draws a fixed sample: a p-value is that of one sample, and is what it is.


def test_laws_of_one_batch():
    draws, like = Draws(11, 4000), torch.zeros(4000, 25)
    u, z = draws.uniform("u", like).double().flatten(), draws.normal("z", like).double().flatten()
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3 and stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert 0 <= float(u.min()) and float(u.max()) < 1
    counts = torch.bincount((u * 256).long(), minlength=256).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (float(z.pow(power).mean()) - moment) / math.sqrt(variance / len(z))
        assert abs(error) < 4, f"moment {power}"


def test_the_tail_of_normals_is_there():
    """Four million have as many beyond 4.5 as they should (27 +- 5), and none beyond what 32 bits allow."""
    z = Draws(2, 2000).normal("z", torch.zeros(2000, 2000)).abs()
    count, expected = int((z > 4.5).sum()), 4e6 * math.erfc(4.5 / math.sqrt(2))
    assert abs(count - expected) < 4 * math.sqrt(expected)
    assert 5 < float(z.max()) <= math.sqrt(64 * math.log(2))


def test_numbers_of_different_steps_rows_and_places_are_uncorrelated():
    """Neighbours along each: 1,000 steps of 20 rows of 10 values; and pairs of them are evenly spread in the plane."""
    source, like = Draws(4, 20, ahead=Ahead()), torch.zeros(20, 10)
    u = torch.stack([source.at(step).uniform("u", like) for step in range(1000)]).double()
    other = torch.stack([source.at(step).uniform("v", like) for step in range(1000)]).double()
    pairs = [(u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[..., 1:], u[..., :-1]), (u[..., 2:], u[..., :-2]), (u, other)]
    for a, b in pairs:
        a, b = a.flatten().numpy(), b.flatten().numpy()
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))
        cells = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])[0].ravel()
        assert stats.chisquare(cells).pvalue > 1e-3


def test_every_bit_of_a_word_is_fair():
    start, gamma = stream_of(0, "training", "noise")
    words = mix(torch.arange(1 << 16).mul_(gamma).add_(start))
    bits = torch.stack([(words >> bit) & 1 for bit in range(64)]).double()
    error = (bits.mean(1) - 0.5) / (0.5 / math.sqrt(1 << 16))
    assert float(error.abs().max()) < 4.5
    between = torch.corrcoef(bits) - torch.eye(64)
    assert float(between.abs().max()) < 5.5 / math.sqrt(1 << 16)


def test_every_gamma_changes_its_bits_often():
    """Odd, and at least 24 changes between neighbouring bits, as the source demands; of random ones 2 % have fewer."""
    gammas = [stream_of(seed, "training", "noise")[1] & M for seed in range(2000)]
    assert all(gamma % 2 and (gamma ^ gamma >> 1).bit_count() >= 24 for gamma in gammas) and len(set(gammas)) == 2000


@pytest.mark.parametrize("count", [1, 7, 64])
def test_stratified_numbers_cover_each_share_once(count):
    like, offsets = torch.zeros(count, 2), []
    for step in range(200):
        unit = Draws(0, count, step=step).spread("times", like)
        assert (unit * count).floor().long().tolist() == list(range(count))
        offsets.append(float(unit[0]) * count)
    assert stats.kstest(offsets, "uniform").pvalue > 1e-3
    apart = Draws(0, 5000).spread("times", torch.zeros(5000, 2), stratified=False)
    assert stats.kstest(apart.numpy(), "uniform").pvalue > 1e-3


# Dropout


class Twice(nn.Module):
    """Its layer is called twice."""

    def __init__(self, share: float = 0.3, width: int = 37):
        super().__init__()
        self.first, self.dropout = nn.Linear(4, width), Dropout(share)

    def forward(self, x):
        h = torch.ones_like(self.first(x))
        return self.dropout(h), self.dropout(h)


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.97])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    layer = Dropout(share)
    with Masks(layer, 0) as masks:
        masks.at(Draws(0, 1000))
        found = layer(torch.ones(1000, 203))
    kept = found != 0
    assert abs(float(kept.float().mean()) - (1 - share)) < 4 * math.sqrt(share * (1 - share) / kept.numel()) + 2**-17
    scale = found[kept].unique()
    assert len(scale) == 1 and float(scale) == pytest.approx(1 / (1 - share), rel=2**-16 / (1 - share))
    if share > 0.01:
        for axis in (0, 1):  # the counts of columns and of rows spread as those of independent masks
            counts = kept.double().mean(axis)
            square = (counts - (1 - share)).square().sum() * kept.shape[axis] / (share * (1 - share))
            assert 1e-3 < stats.chi2.cdf(float(square), len(counts)) < 1 - 1e-3


def test_masks_are_those_of_the_layer_the_call_the_step_and_the_row():
    model, x = nn.ModuleList([Twice(), Twice()]), torch.randn(12, 4)

    def masks_at(step, first=0, count=12, seed=0):
        with Masks(model, seed) as masks:
            masks.at(Draws(seed, 12, step=step, first=first, count=count))
            return [mask for each in model for mask in each(x[first : first + count])]

    whole = masks_at(3)
    assert all(torch.equal(a, b) for a, b in zip(whole, masks_at(3), strict=True))
    everything = [*whole, *masks_at(4), *masks_at(3, seed=1)]
    assert len({tuple(mask.flatten().tolist()) for mask in everything}) == 12, "layers, calls, steps and seeds differ"
    for cuts in ([0, 5, 12], [0, 1, 2, 11, 12]):
        parts = [masks_at(3, a, b - a) for a, b in pairwise(cuts)]
        assert all(
            torch.equal(torch.cat(each), mask) for each, mask in zip(zip(*parts, strict=True), whole, strict=True)
        )


def test_a_batch_beside_its_copy_keeps_the_masks_of_its_rows():
    layer = Dropout(0.4)

    def masked(first, count, copies):
        with Masks(layer, 0) as masks:
            masks.at(Draws(0, 10, first=first, count=count))
            return layer(torch.ones(copies * count, 9)).split(count)

    whole = masked(0, 10, 3)
    assert torch.equal(whole[0], masked(0, 10, 1)[0]) and not torch.equal(whole[0], whole[1])
    upper, lower = masked(0, 4, 3), masked(4, 6, 3)
    for copy in range(3):
        assert torch.equal(torch.cat([upper[copy], lower[copy]]), whole[copy])


def test_outside_a_training_it_is_torchs_dropout():
    x, layer = torch.randn(50, 20), Dropout(0.4)
    torch.manual_seed(1)
    found = layer(x)
    torch.manual_seed(1)
    assert torch.equal(found, functional.dropout(x, 0.4))
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    with Masks(layer.train(), 0) as masks:
        masks.at(Draws(0, 50))
        assert not torch.equal(layer(x), found)
        assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(1)
    assert torch.equal(layer.train()(x), found), "left as it was"
    with pytest.raises(ValueError, match=r"does not lie in \[0, 1\)"):
        Dropout(1.0)


def test_masks_reach_every_dtype_shape_and_second_derivative(dtype):
    layer = Dropout(0.5)
    with Masks(layer, 0) as masks:
        for shape in ((6, 5), (6, 3, 7), (6, 2, 5, 3), (6, 2, 3, 4, 5), (6,)):
            masks.at(Draws(0, 6))
            x = torch.rand(shape, dtype=dtype, requires_grad=True)
            y = layer(x)
            assert y.dtype == dtype and y.shape == shape
            (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
            (curve,) = torch.autograd.grad(slope.sum(), x)
            torch.testing.assert_close(curve, torch.where(y == 0, 0.0, torch.full_like(y, 8.0)))
        masks.at(Draws(0, 6))
        last = layer(torch.ones(6, 2, 5, 4).to(memory_format=torch.channels_last))
        masks.at(Draws(0, 6))
        assert torch.equal(last, layer(torch.ones(6, 2, 5, 4)))
        masks.at(Draws(0, 6))
        assert layer(torch.ones(6, 9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def networks():
    small = {"dropout": 0.3, "condition": 0}
    yield "unet", lambda **k: UNet((1, 6, 5), channels=[8, 8], attention=[3], **small, **k)
    yield "ncsnpp", lambda **k: NCSNpp((1, 8, 8), width=8, multipliers=[1, 2], blocks=1, attention=[4], **small, **k)
    yield "adm", lambda **k: ADM((1, 8, 8), channels=[8, 8], blocks=1, attention=[4], head_channels=4, **small, **k)
    yield "dit", lambda **k: DiT((1, 6, 5), patch=2, width=8, depth=2, heads=2, **small, **k)


def stirred(model: nn.Module) -> nn.Module:
    """With weights that are not zero at the last layers."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model.train()


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in networks()])
def test_what_is_computed_twice_has_one_mask(build):
    """Checkpointing of activations, also where the network has been called again before its way back."""
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = stirred(build(checkpointing=checkpointing))
        size = (6, 5) if isinstance(model, UNet | DiT) else (8, 8)
        x = torch.randn(5, 1, *size, generator=torch.Generator().manual_seed(1))
        with Masks(model, 0) as masks:
            assert masks.layers
            masks.at(Draws(0, 5, step=2))
            c = torch.linspace(-1, 1, 5)
            total = model(x, c).square().sum() + model(x, c).square().sum()
            total.backward()
        found.append((total.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (a, g), (b, h) = found
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-5)


def test_a_compiled_network_has_the_same_masks_and_stays_compiled():
    import torch._dynamo as dynamo

    def outputs(compiled):
        torch.manual_seed(0)
        model = stirred(MLP((2,), width=8, depth=3, fourier=4, dropout=0.4))
        dynamo.reset()
        if compiled:
            model.compile(backend="aot_eager")
        with Masks(model, 0) as masks:
            found = []
            for step in range(6):
                for first in (0, 4):
                    masks.at(Draws(0, 8, step=step, first=first, count=4))
                    found.append(model(torch.ones(4, 2), torch.zeros(4)).detach())
        return torch.cat(found)

    plain = outputs(False)
    dynamo.utils.counters.clear()
    torch.testing.assert_close(outputs(True), plain)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1 and not dynamo.utils.counters["graph_break"]
    assert len(plain.unique(dim=0)) > 40


def test_dropout_of_diffusers_is_ours():
    pytest.importorskip("diffusers")
    from scoresde.models import DiffusersUNet

    model = DiffusersUNet(
        (1, 8, 8),
        block_out_channels=[8, 8],
        norm_num_groups=4,
        dropout=0.2,
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
    )
    assert not [each for each in model.modules() if isinstance(each, nn.Dropout)] and Masks(model, 0).layers
