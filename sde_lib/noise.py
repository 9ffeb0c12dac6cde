"""Standard normals that do not depend on how the samples are cut into batches.

Samples are numbered; blocks of 64 consecutive numbers share a generator, seeded by the run's seed and the block's
number. A batch draws the blocks that it touches, whole, and keeps its own rows: the noise of sample 1,000 is
bitwise the same alone, in a batch of 64 and in a batch of 10,000. Small samples are drawn for many steps at a time,
so that a step costs one slice.
"""

import hashlib
import math

import torch
from torch import Tensor

BLOCK = 64
AHEAD = 1 << 13  # normals that a block draws at a time; a constant, since the stream depends on it


def seed_of(*parts: object) -> int:
    """A 63-bit seed that differs whenever a part does."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BlockNoise:
    """The normals of the samples numbered first, ..., first + count - 1; call it once for every draw.

    Arguments:
        seed: the run's seed.
        first, count: which samples.
        shape: the shape of one sample.
        stream: a name that keeps apart the noises of one seed (start, steps, probes, dequantisation).
    """

    def __init__(
        self,
        seed: int,
        first: int,
        count: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        stream: str = "sampler",
    ):
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        self.generators = [torch.Generator(device).manual_seed(seed_of(seed, stream, block)) for block in blocks]
        self.rows = slice(first - blocks.start * BLOCK, first - blocks.start * BLOCK + count)
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self.ahead = max(1, AHEAD // (BLOCK * math.prod(shape)))
        self.buffer: list[Tensor] = []

    def __call__(self, like: Tensor | None = None) -> Tensor:
        """The next normals, shape (count, *shape); ``like`` is there so that torch.randn_like fits the same place."""
        if not self.buffer:
            self.buffer = list(
                torch.cat([self._draw(torch.randn, g) for g in self.generators], dim=1)[:, self.rows].unbind(0)[::-1]
            )
        return self.buffer.pop()

    def uniform(self) -> Tensor:
        """The next uniform numbers on [0, 1), shape (count, *shape)."""
        return torch.cat([self._draw(torch.rand, g)[0] for g in self.generators])[self.rows]

    def _draw(self, function, generator: torch.Generator) -> Tensor:
        return function((self.ahead, BLOCK, *self.shape), generator=generator, dtype=self.dtype, device=self.device)
