"""The cost of an update of a training, part by part, and the effect of its options.

    python -m benchmarks.update
    python -m benchmarks.update --operators      torch's operators by their own time, of forward and backward

The images are 28 x 28 greys, the network is a U-Net with 24, 48 and 96 channels and attention at 7 x 7. Contestants
take turns of a few updates in one process, so that the machine's drift is the same for all, and medians over the turns
are printed.
"""

import argparse
import time
from collections import defaultdict
from statistics import median

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from scoresde.data import Data
from scoresde.models import EDM, ScoreModel, UNet
from scoresde.sde_lib import VE
from scoresde.training import EMA, DenoisingScoreMatching, Trainer
from scoresde.training.batches import Batches
from scoresde.training.optimiser import optimiser_of
from scoresde.training.posthoc import PowerAverages
from scoresde.training.speed import decide

CONTESTANTS = {
    "as it is": {},
    "channels last": {"channels_last": True},
    "compiled": {"compile": True},
    "compiled, channels last": {"compile": True, "channels_last": True},
    "bf16": {"precision": "bf16"},
    "muon": {"optimiser": "muon"},
    "in 2 parts": {"accumulate": 2},
    "with averages for later": {"powers": True},
}


class Contestant:
    """A training with some options, which makes one update at a time."""

    def __init__(self, size: int, flip: bool = False, powers: bool = False, **keys):
        torch.manual_seed(0)
        values = torch.randint(0, 256, (4096, 1, 28, 28), dtype=torch.uint8)
        data = Data(values, values[:64], 128, 128, levels=256)
        data.flip = flip
        self.sde, device = VE(), torch.device("cpu")
        self.model = ScoreModel(self.sde, UNet((1, 28, 28), channels=[24, 48, 96], attention=[7]), EDM(0.5))
        self.trainer = Trainer(DenoisingScoreMatching(), steps=10**6, batch=size, **keys)
        given = {name: getattr(self.trainer, name) for name in ("compile", "precision", "channels_last")}
        self.speed = decide(self.model, True, False, device, **given)
        self.within = self.speed.applied(self.model, device)
        self.within.__enter__()
        self.batches = Batches(data, size, 0, device)
        t = self.trainer
        self.optimiser = optimiser_of(self.model, t.optimiser, 1e-4, t.betas, t.momentum, fused=True)
        self.ema, self.powers = EMA(self.model, 0.999), PowerAverages(self.model) if powers else None
        self.step, self.spent = 0, defaultdict(list)

    def update(self) -> None:
        """Makes one update as the trainer does."""
        began = time.perf_counter()
        self.optimiser.zero_grad()
        loss = self.trainer.gradient(self.sde, self.model, self.batches, self.step, self.speed)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        torch.stack([loss, norm]).tolist()
        self.optimiser.step()
        self.ema.update()
        if self.powers:
            self.powers.update(self.step + 1)
        self.step += 1
        self.spent["update"].append(time.perf_counter() - began)

    def parts(self) -> None:
        """Makes one update and times each of its parts."""
        self.optimiser.zero_grad()
        with self.timed("batch"):
            x = self.speed.laid_out(self.batches(self.step))
        with self.timed("forward"), self.speed.autocast(x.device):
            loss = self.trainer.loss(self.sde, self.model, x).mean()
        with self.timed("backward"):
            loss.backward()
        with self.timed("norm"):
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        with self.timed("optimiser"):
            self.optimiser.step()
        with self.timed("average"):
            self.ema.update()
        self.step += 1

    def timed(self, part: str):
        return Timer(self.spent[part])


class Timer:
    """Adds the seconds that a block takes to a list."""

    def __init__(self, spent: list[float]):
        self.spent = spent

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_) -> None:
        self.spent.append(time.perf_counter() - self.began)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="contestants, by their whole names")
    parser.add_argument("--operators", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    wanted = {k: v for k, v in CONTESTANTS.items() if not options.only or k in options.only}
    if options.operators:
        return operators(options.batch)
    running = {name: Contestant(options.batch, **keys) for name, keys in wanted.items()}
    for each in running.values():  # the first updates compile and allocate
        each.update(), each.update()
        each.spent.clear()
    for _ in range(options.rounds):
        for each in running.values():
            each.update(), each.update()
            each.parts()
    first = next(iter(running.values()))
    shown = ["update", "batch", "forward", "backward", "norm", "optimiser", "average"]
    print(f"{options.threads} threads, batches of {options.batch}; milliseconds, medians of {options.rounds} turns")
    print("| | images / s | " + " | ".join(shown) + " | of the first |")
    print("|---" * (len(shown) + 3) + "|")
    for name, each in running.items():
        middle = {part: 1e3 * median(each.spent[part]) for part in shown}
        share = middle["update"] / (1e3 * median(first.spent["update"]))
        cells = " | ".join(f"{middle[part]:.1f}" for part in shown)
        print(f"| {name} | {1e3 * options.batch / middle['update']:.0f} | {cells} | {share:.2f} |")


def operators(size: int) -> None:
    """Prints torch's operators by their own share of the time of five updates."""
    each = Contestant(size)
    each.update(), each.update()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(5):
            each.update()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print("| operator | share | ms an update | calls an update |\n|---|---|---|---|")
    for row in rows[:18]:
        own = row.self_cpu_time_total
        print(f"| {row.key} | {own / total:.1%} | {own / 5e3:.2f} | {row.count / 5:.0f} |")


if __name__ == "__main__":
    main()
