r"""The random numbers of training, as functions of (seed, purpose, stream, step, row).

A counter-based generator needs no state. With s the key of a step and gamma an odd constant of the stream, word j is

.. math:: w_j = \operatorname{mix}(s + \gamma j), \qquad
          \operatorname{mix}: z \mapsto (z \oplus (z \gg 30))\,m_1 \mapsto (z \oplus (z \gg 27))\,m_2
          \mapsto z \oplus (z \gg 31) \pmod{2^{64}} .

This is SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195), with random access to its words. The key
of step n is mix(start + golden n), where start, like gamma, is a hash of seed, purpose and stream (:func:`stream_of`)
and golden is the constant ``GOLDEN``. Row i of a batch owns the words iW ... (i + 1)W - 1, with W the number that its
values need. So the numbers of a row do not depend on other rows: a batch may be split into parts or among processes,
and the steps may come in any order. (Stratified numbers take one uniform number from the step's key, and the place of
the row in the whole batch: :meth:`Draws.spread`.)

Words are integers and therefore the same on every device. A word gives two uniform numbers of 24 bits, or two standard
normals by the transform of Box and Muller (1958, doi 10.1214/aoms/1177706645). Both are computed in float32, also for
float64 tensors; the normals may differ between devices in the last bits of log and cos.

We use a counter instead of a generator for each block of rows (:class:`BlockNoise`) because the device must make the
masks of dropout: in a U-Net one layer has over 10^5 values for a picture of 32 x 32. ``python -m
benchmarks.randomness --sources`` times both.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
MIX = (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)
AHEAD = {"cpu": 1 << 14, "cuda": 1 << 20}
"""How many numbers a call draws, for several steps at a time, where one step needs fewer; by type of device. It changes
no number.
"""
CACHED = 1 << 15
"""How many words a CPU mixes at a time: they stay in its cache, at half the time of 300,000 at once."""


def signed(value: int) -> int:
    """Returns value modulo 2^64 as the signed 64-bit integer with the same bits."""
    return ((value + (1 << 63)) % (1 << 64)) - (1 << 63)


def mix(z: Tensor) -> Tensor:
    """Applies the bijection of the module docstring to int64 z in place, and returns z."""
    if z.device.type == "cpu" and z.numel() > CACHED and z.is_contiguous() and not torch.compiler.is_compiling():
        for part in z.view(-1).split(CACHED):
            mix(part)
        return z
    for shift, factor in MIX:
        z ^= (z >> shift).bitwise_and_((1 << (64 - shift)) - 1)  # the mask removes the sign bits that torch shifts in
        z *= signed(factor)
    z ^= (z >> 31).bitwise_and_((1 << 33) - 1)
    return z


@lru_cache(maxsize=4096)
def stream_of(*parts: object) -> tuple[int, int]:
    """Returns the start of a stream and its odd gamma, signed 64-bit integers from a hash of the parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
    gamma = int.from_bytes(digest[8:], "little") | 1
    if (gamma ^ gamma >> 1).bit_count() < 24:  # a gamma with few bit changes mixes badly, as the paper shows
        gamma ^= 0xAAAAAAAAAAAAAAAA
    return signed(int.from_bytes(digest[:8], "little")), signed(gamma)


def keys_of(starts: Tensor, steps: range) -> Tensor:
    """Returns the keys of streams with the starts (n,) at each of the steps, int64, (steps, n)."""
    numbers = torch.arange(steps.start, steps.stop, device=starts.device)
    return mix(numbers.mul_(signed(GOLDEN))[:, None] + starts)


class Ahead:
    """A buffer of draws made for several steps at a time, since launching a kernel costs more than drawing few numbers.

    It holds the rest of the last block of each kind of draw, and changes no number.
    """

    def __init__(self):
        self.blocks: dict[tuple, tuple[int, list[Tensor]]] = {}

    def __call__(self, kind: tuple, step: int, draw: Callable[[], Tensor]) -> Tensor:
        """Returns the draw of a step; ``draw`` makes those of this and the next steps, stacked."""
        following, left = self.blocks.get(kind, (-1, []))
        if following != step or not left:
            left = list(draw().unbind()[::-1])
        self.blocks[kind] = step + 1, left
        return left.pop()  # each is returned once, so the caller may write into it


@dataclass(frozen=True)
class Draws:
    """The random numbers of ``count`` consecutive rows of a batch of ``total`` at one step.

    Each use of random numbers has a ``stream``, a name that makes its numbers independent of all others.

    Arguments:
        seed: the training's seed.
        total: the rows of the whole batch.
        step: the number of the update.
        first, count: which rows of the batch; all from ``first`` on where ``count`` is None.
        purpose: separates the uses of one seed, such as training and validation.
        ahead: the buffer shared by the draws of consecutive steps; None to draw step by step.

    Raises:
        ValueError: the batch has no such rows.
    """

    seed: int
    total: int
    step: int = 0
    first: int = 0
    count: int | None = None
    purpose: str = "training"
    ahead: Ahead | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if self.count is None:
            object.__setattr__(self, "count", self.total - self.first)
        if not 0 <= self.first <= self.first + self.count <= self.total:
            raise ValueError(f"a batch of {self.total} rows has no {self.count} rows from row {self.first} on")

    @classmethod
    def afresh(cls, count: int) -> "Draws":
        """Returns the draws of a batch of ``count`` rows, with a seed from torch's global generator."""
        return cls(int(torch.randint(2**63 - 1, ())), count, purpose="afresh")

    def at(self, step: int) -> "Draws":
        """Returns the draws of the same rows at another step."""
        return Draws(self.seed, self.total, step, self.first, self.count, self.purpose, self.ahead)

    def part(self, first: int, count: int) -> "Draws":
        """Returns the draws of ``count`` of these rows, from row ``first`` of them on."""
        return Draws(self.seed, self.total, self.step, self.first + first, count, self.purpose, self.ahead)

    def normal(self, stream: str, like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """Draws standard normals (count, *shape) with the dtype and on the device of ``like``.

        Arguments:
            stream: the name of their use.
            like: a tensor of ``count`` rows; if it holds integers the numbers are float32.
            shape: the shape of one row; None for that of ``like``.

        Raises:
            ValueError: ``like`` has another number of rows.
        """
        return self._drawn(normals, stream, like, like.shape[1:] if shape is None else shape)

    def uniform(self, stream: str, like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """Draws uniform numbers in [0, 1), multiples of 2^-24; the arguments are those of :meth:`normal`."""
        return self._drawn(uniforms, stream, like, like.shape[1:] if shape is None else shape)

    def spread(self, stream: str, like: Tensor, stratified: bool = True) -> Tensor:
        """Draws uniform numbers in [0, 1), one a row, (count,), with the dtype and on the device of ``like``.

        Stratified numbers are evenly spaced over the whole batch: row i has (i + u)/total, with one u a step.
        """
        return self._drawn(spreads if stratified else uniforms, stream, like, torch.Size())

    def _drawn(self, law: Callable, stream: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        if len(like) != self.count:
            raise ValueError(f"draws for {self.count} rows were asked for a batch of {len(like)}")
        if self.ahead is None:
            return self._block(law, stream, like, shape, 1)[0]
        kind = law, stream, self.seed, self.purpose, self.first, self.count, shape, like.dtype, like.device
        return self.ahead(kind, self.step, lambda: self._block(law, stream, like, shape))

    def _block(
        self, law: Callable, stream: str, like: Tensor, shape: tuple[int, ...], steps: int | None = None
    ) -> Tensor:
        """Returns the draws of this step and the next ones, (steps, count, *shape); by default of as many steps as
        ``AHEAD`` has room for.
        """
        device = like.device if like.device.type in AHEAD else torch.device("cpu")
        values = math.prod(shape)
        steps = steps or max(1, AHEAD[device.type] // max(1, self.count * values))
        start, gamma = stream_of(self.seed, self.purpose, stream)
        keys = keys_of(torch.tensor([start], device=device), range(self.step, self.step + steps))
        if law is spreads:
            drawn = spreads(keys, torch.arange(self.first, self.first + self.count, device=device), self.total)
        else:
            width = -(-values // 2)  # words a row
            places = torch.arange(self.first * width, (self.first + self.count) * width, device=device).mul_(gamma)
            drawn = law(mix(keys + places).reshape(steps, self.count, width), values)
        dtype = like.dtype if like.is_floating_point() else torch.float32
        drawn = drawn.reshape(steps, self.count, *shape).to(like.device, dtype)
        if law is not normals:  # rounding to the dtype must not give 1
            drawn.clamp_max_(1 - torch.finfo(dtype).eps)
        return drawn


def spreads(keys: Tensor, rows: Tensor, total: int) -> Tensor:
    """Returns (i + u)/total for rows i (count,) and one u in [0, 1) for each key (steps, 1), shape (steps, count)."""
    u = (keys >> 40).bitwise_and_((1 << 24) - 1).float().mul_(2.0**-24)
    return rows.add(u).div_(total)


def uniforms(words: Tensor, values: int) -> Tensor:
    """Maps words (*, W) to uniform numbers in [0, 1), (*, values), float32: the top 24 bits of each half word."""
    bits = (words.view(torch.int32) >> 8).bitwise_and_((1 << 24) - 1)
    return bits[..., :values].float().mul_(2.0**-24)


def normals(words: Tensor, values: int) -> Tensor:
    """Maps words (*, W) to standard normals (*, values), float32: half a word is a radius, the other half an angle.

    The radius is at most sqrt(64 log 2) = 6.7: integers near 0 are exact in float32, so the tail is not rounded away.
    """
    half = words.view(torch.int32)
    radius = half[..., 1::2].float().add_(0.5).abs_().mul_(2.0**-31).log_().mul_(-2).sqrt_()
    angle = half[..., ::2].float().mul_(math.pi / 2**31)
    z = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=-1)
    return z[..., :values].contiguous()
