"""The source of noise: the normals of a sample depend on the seed and its number, never on how samples are cut into
batches.
"""

import pytest
import torch

from scoresde.sde_lib import BlockNoise
from scoresde.sde_lib.noise import BLOCK, seed_of

from .conftest import DTYPES, SHAPES


def draws(count: int, batch: int, shape, dtype, calls: int, first: int = 0, **keys) -> torch.Tensor:
    """Several calls' normals of ``count`` samples, drawn a batch at a time, shape (calls, count, *shape)."""
    parts = []
    for start in range(first, first + count, batch):
        noise = BlockNoise(
            keys.get("seed", 0),
            start,
            min(batch, first + count - start),
            shape,
            dtype,
            stream=keys.get("stream", "sampler"),
        )
        parts.append(torch.stack([noise() for _ in range(calls)]))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("batch", [1, 7, 64, 65, 1000])
@pytest.mark.parametrize("kind", SHAPES)
def test_bitwise_equal_for_any_cut(batch, kind, dtype):
    count, calls = (150, 600) if kind == "vectors" else (150, 9)  # more calls than a block draws ahead
    whole = draws(count, count, SHAPES[kind], dtype, calls)
    assert whole.dtype == dtype and whole.shape == (calls, count, *SHAPES[kind])
    assert torch.equal(draws(count, batch, SHAPES[kind], dtype, calls), whole)


def test_any_first_sample(shape, dtype):
    whole = draws(200, 200, shape, dtype, 3)
    for first, count in ((0, 1), (63, 2), (64, 64), (70, 101), (199, 1)):
        assert torch.equal(draws(count, count, shape, dtype, 3, first=first), whole[:, first : first + count])


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_uniform_is_bitwise_equal_for_any_cut(batch, shape):
    whole = BlockNoise(3, 0, 150, shape, torch.float64).uniform()
    cut = torch.cat(
        [BlockNoise(3, i, min(batch, 150 - i), shape, torch.float64).uniform() for i in range(0, 150, batch)]
    )
    assert torch.equal(cut, whole)
    assert float(whole.min()) >= 0 and float(whole.max()) < 1
    n = whole.numel()
    assert (
        abs(float(whole.mean()) - 0.5) < 5 / (12 * n) ** 0.5
        and abs(float(whole.var()) - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    )


@pytest.mark.parametrize("name", DTYPES)
def test_standard_normal(name):
    x = draws(640, 640, (2,), DTYPES[name], 100).double()
    n = x.numel()
    assert abs(float(x.mean())) < 5 / n**0.5
    assert abs(float(x.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((x**4).mean()) - 3) < 5 * (96 / n) ** 0.5
    # no correlation between coordinates, samples, blocks, or one call and the next
    for pairs in (x[..., 0] * x[..., 1], x[:, :-1] * x[:, 1:], x[:, :-BLOCK] * x[:, BLOCK:], x[:-1] * x[1:]):
        assert abs(float(pairs.mean())) < 5 / pairs.numel() ** 0.5


def test_nothing_repeats():
    """Every seed, stream and block has normals of its own: of 10,000 draws no two are equal."""
    parts = [
        draws(130, 130, (2,), torch.float64, 5, seed=seed, stream=stream)
        for seed in (0, 1)
        for stream in ("prior", "sampler", "probes")
    ]
    values = torch.stack(parts).flatten()
    assert len(values.unique()) == len(values)


def test_seeds():
    """Names cannot run into each other, and a seed is the same on every machine and in every session."""
    assert seed_of(0, "sampler", 1) == seed_of(0, "sampler", 1) == 7122079922343572062
    assert len({seed_of(a, s, b) for a in range(10) for s in ("prior", "sampler") for b in range(50)}) == 1000
    assert all(0 <= seed_of(i) < 2**63 for i in range(100))
    assert seed_of(1, "a", 23) != seed_of(12, "a", 3)
