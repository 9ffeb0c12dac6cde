"""The cost of an update's random numbers: functions of (seed, stream, step, row) against torch's global generator.

    python -m benchmarks.randomness
    python -m benchmarks.randomness --sources       the sources of normals by themselves

The same network is trained twice in one process, with :class:`scoresde.sde_lib.Draws` and
:class:`scoresde.sde_lib.Masks`, and with torch's generator behind the same calls. Both take turns update by update, so
that the machine's drift is the same for both. The columns are the medians of the updates' CPU time; the median of the
ratios of neighbouring updates, with its quartiles; and the share of an update's time that its draws take, without those
of dropout.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from scoresde.data import Data
from scoresde.models import EDM, MLP, ScoreModel, UNet
from scoresde.sde_lib import VE, Ahead, Draws, Masks
from scoresde.sde_lib.noise import seed_of
from scoresde.training import EMA, DenoisingScoreMatching, Trainer
from scoresde.training.batches import Batches
from scoresde.training.optimiser import optimiser_of
from scoresde.training.speed import decide

SIZES: dict[str, tuple[tuple[int, ...], int, Callable[[float], nn.Module]]] = {
    "MLP, points of 2": ((2,), 256, lambda dropout: MLP((2,), dropout=dropout)),
    "U-Net, 8 x 8": (
        (1, 8, 8),
        128,
        lambda dropout: UNet((1, 8, 8), channels=[32, 64], attention=[4], dropout=dropout),
    ),
    "U-Net, 28 x 28": (
        (1, 28, 28),
        64,
        lambda dropout: UNet((1, 28, 28), channels=[24, 48, 96], attention=[7], dropout=dropout),
    ),
}


@dataclass(frozen=True)
class Global:
    """The interface of Draws, with numbers from torch's global generator."""

    count: int

    def at(self, step: int) -> "Global":
        return self

    def part(self, first: int, count: int) -> "Global":
        return Global(count)

    def normal(self, stream: str, like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        return torch.randn_like(like) if shape is None else like.new_empty(self.count, *shape).normal_()

    def uniform(self, stream: str, like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        return torch.rand((self.count, *(like.shape[1:] if shape is None else shape)), device=like.device)

    def spread(self, stream: str, like: Tensor, stratified: bool = True) -> Tensor:
        unit = torch.rand(1 if stratified else self.count, dtype=like.dtype, device=like.device)
        if stratified:
            unit = (torch.arange(self.count, dtype=like.dtype, device=like.device) + unit) / self.count
        return unit.clamp_max(1 - torch.finfo(like.dtype).eps)


class Contestant:
    """A training that makes one update at a time."""

    def __init__(self, shape: tuple[int, ...], size: int, net: nn.Module, ours: bool):
        if len(shape) == 1:
            values = torch.randn(4096, *shape)
            data = Data(values, values[:64], 0.0, 1.0)
        else:
            values = torch.randint(0, 256, (1024, *shape), dtype=torch.uint8)
            data = Data(values, values[:64], 128, 128, levels=256)
        self.sde, device = VE(), torch.device("cpu")
        self.model = ScoreModel(self.sde, net, EDM(0.5)).train()
        self.trainer = Trainer(DenoisingScoreMatching(), steps=10**6, batch=size)
        self.speed = decide(self.model, len(shape) == 3, False, device, False, "float32", False)
        self.batches = Batches(data, size, 0, device)
        self.optimiser = optimiser_of(self.model, "adam", 1e-4, (0.9, 0.99), 0.95, fused=True)
        self.ema, self.masks, self.step = EMA(self.model, 0.999), None, 0
        if ours:
            self.masks = Masks(self.model, 0).__enter__()
        else:
            self.batches.source = Global(size)

    def update(self) -> float:
        """Makes one update as the trainer does, and returns its seconds of CPU time."""
        began = time.process_time()
        self.optimiser.zero_grad()
        loss = self.trainer.gradient(self.sde, self.model, self.batches, self.step, self.speed, self.masks)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        torch.stack([loss, norm]).tolist()
        self.optimiser.step()
        self.ema.update()
        self.step += 1
        return time.process_time() - began

    def seconds_of_draws(self, count: int) -> float:
        """Returns the seconds of CPU time that an update's draws take, without those of dropout."""
        x = self.batches(0)
        began = time.process_time()
        for step in range(self.step, self.step + count):
            draws = self.batches.draws(step)
            draws.spread("times", x)
            draws.normal("noise", x)
            if self.batches.data.levels:
                draws.uniform("dequantisation", x)
        return (time.process_time() - began) / count


def compare(name: str, dropout: float, rounds: int, seconds: float) -> None:
    """Prints the row of one size."""
    shape, size, build = SIZES[name]
    made = []
    for ours in (False, True):
        torch.manual_seed(0)
        made.append(Contestant(shape, size, build(dropout), ours))
    for each in made * 2:
        each.update()
    times, began = [], time.perf_counter()
    while len(times) < rounds or time.perf_counter() - began < seconds:
        pair = made if len(times) % 2 else made[::-1]
        spent = {id(each): each.update() for each in pair}
        times.append([spent[id(each)] for each in made])
    theirs, ours = (median(column) for column in zip(*times, strict=True))
    ratios = [b / a for a, b in times]
    low, _, high = quantiles(ratios, n=4)
    shares = [each.seconds_of_draws(max(rounds, 20)) / t for each, t in zip(made, (theirs, ours), strict=True)]
    print(
        f"| {name}, batch {size} | {dropout:g} | {1e3 * theirs:.3f} | {1e3 * ours:.3f} | {median(ratios):.3f} "
        f"({low:.3f} to {high:.3f}) | {shares[0]:.2%} | {shares[1]:.2%} |"
    )


def sources(seconds: float) -> None:
    """Prints the time of one step's normals from each source."""

    def of_torch(x: Tensor) -> Callable[[int], Tensor]:
        return lambda step: torch.randn_like(x)

    def of_counter(x: Tensor) -> Callable[[int], Tensor]:
        draws = Draws(0, len(x), ahead=Ahead())
        return lambda step: draws.at(step).normal("noise", x)

    def of_blocks(x: Tensor) -> Callable[[int], Tensor]:
        """Uses a generator for each step and block of 64 rows, and draws many steps at a time if they are small."""
        ahead = max(1, 8192 // (64 * x[0].numel()))
        kept: dict[int, Tensor] = {}

        def draw(step: int) -> Tensor:
            if step // ahead not in kept:
                kept.clear()
                seeds = [seed_of(0, "noise", step // ahead, block) for block in range(-(-len(x) // 64))]
                generators = [torch.Generator().manual_seed(seed) for seed in seeds]
                kept[step // ahead] = torch.cat(
                    [torch.randn(ahead, 64, *x.shape[1:], generator=each) for each in generators], 1
                )
            return kept[step // ahead][step % ahead].clone()

        return draw

    def timed(draw: Callable[[int], Tensor]) -> float:
        steps, found, began = itertools.count(), [], time.perf_counter()
        while len(found) < 3 or time.perf_counter() - began < seconds:
            start = time.process_time()
            for _ in range(64):
                draw(next(steps))
            found.append((time.process_time() - start) / 64)
        return 1e6 * median(found)

    print("| normals of one step | torch's generator | seeded blocks | counter |\n|---|---|---|---|")
    for name, (shape, size, _) in SIZES.items():
        x = torch.zeros(size, *shape)
        times = [timed(each(x)) for each in (of_torch, of_blocks, of_counter)]
        print(f"| {name}, batch {size} | {' | '.join(f'{each:.1f} us' for each in times)} |")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each size at least")
    parser.add_argument("--only", nargs="+", default=list(SIZES), choices=list(SIZES), help="sizes, by their names")
    parser.add_argument("--sources", action="store_true")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    if options.sources:
        return sources(options.seconds)
    print("| update | dropout | global (ms) | counter (ms) | ratio | drawing, global | drawing, counter |")
    print("|---|---|---|---|---|---|---|")
    for name, dropout in itertools.product(options.only, (0.0, 0.1)):
        compare(name, dropout, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
