"""Standard normals that do not depend on how samples are divided into batches.

Samples are numbered; blocks of 64 consecutive numbers share a generator, seeded by the run's seed, the stream and the
block's number. A batch draws every block that it overlaps as a whole and keeps its own rows: on one type of device the
noise of sample 1,000 is bitwise the same in batches of 1, 64 and 10,000. The normals of small samples are drawn for
many calls at a time, so that most calls cost one slice.
"""

import hashlib
import math

import torch
from torch import Tensor

BLOCK = 64
AHEAD = 1 << 13  # normals that a block draws at a time, at least one for each sample; the numbers depend on it


def seed_of(*parts: object) -> int:
    """Returns a 63-bit seed, the hash of the parts' texts joined by slashes."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BlockNoise:
    """The normals of the samples numbered first, ..., first + count - 1; every call draws the next ones.

    Arguments:
        seed: the run's seed.
        first, count: the first sample and the number of samples.
        shape: the shape of one sample.
        dtype, device: of the numbers; the generators run on the device.
        stream: a name that separates the uses of one seed, such as prior, sampler, probes and dequantisation.
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
        """Draws the next normals, (count, *shape); ``like`` is ignored, for the signature of torch.randn_like."""
        if not self.buffer:
            # the draws of the next ``ahead`` calls, the last one first
            self.buffer = list(
                torch.cat([self._draw(torch.randn, g) for g in self.generators], dim=1)[:, self.rows].unbind(0)[::-1]
            )
        return self.buffer.pop()

    def uniform(self) -> Tensor:
        """Draws the next uniform numbers on [0, 1), shape (count, *shape)."""
        return torch.cat([self._draw(torch.rand, g)[0] for g in self.generators])[self.rows]

    def _draw(self, function, generator: torch.Generator) -> Tensor:
        """Returns one block's numbers for the next ``ahead`` calls, (ahead, BLOCK, *shape); uniform uses the first."""
        return function((self.ahead, BLOCK, *self.shape), generator=generator, dtype=self.dtype, device=self.device)
