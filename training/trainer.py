r"""The training loop, one page read from top to bottom.

A run is a pure function of its configuration and ``seed``: every random number is a function of the seed, its use, the
step and the row (:class:`scoresde.sde_lib.Draws`), and no generator has a state that matters. Stopping and resuming, in
the middle of an epoch too, gives bit for bit the weights of an uninterrupted run (on one machine, with one number of
threads). Cutting the batch into parts changes its gradient by rounding errors only.
"""

import logging
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from scoresde.data import Data
from scoresde.sde_lib import SDE, Draws, Masks
from scoresde.sde_lib.noise import seed_of

from . import checkpoint
from .batches import Batches
from .checkpoint import Checkpoint
from .ema import EMA
from .loss import Loss
from .optimiser import Optimiser, optimiser_of
from .posthoc import PowerAverages
from .speed import Reading, Readings, Speed, decide

log = logging.getLogger(__name__)

Log = Callable[[dict], None]
"""Receives an event of the run, a flat dictionary with ``step``, ``loss`` and the like."""


@dataclass(frozen=True)
class Trainer:
    """Fits a score model to data.

    Arguments:
        loss: what is minimised.
        steps: the number of updates; the whole budget, since the rate's schedule knows its end.
        batch: samples an update.
        optimiser: ``adam``, or ``muon`` for what is a matrix among the weights and Adam for the rest; see
            :mod:`scoresde.training.muon`.
        rate: the learning rate after the warm-up; the size of Muon's steps is made that of Adam's.
        warmup: the updates over which the rate rises linearly from 0.
        schedule: ``cosine`` lets the rate fall to 0 at the last step, ``constant`` keeps it.
        betas: Adam's decays of the first and second moment.
        momentum: Muon's decay of its momentum.
        clip: the largest gradient norm; longer gradients are shortened to it.
        ema: the decay of the weights' moving average, which is what is used afterwards.
        seed: of the weights' start, the order of the data and the noise.
        dequantise: where integers stand: ``uniform``, anywhere in their bins, afresh in every batch, or ``none``, at
            the bins' centres, which fits truncated-normal dequantisation of the likelihood.
        drop: of data of p(x | y), the share of examples whose y is withheld, so that the network learns p(x) too, as
            classifier-free guidance needs.
        evaluate: how often in the run the held-out loss is measured.
        save_seconds: the time between checkpoints.
        compile, precision, channels_last: how fast an update is; ``auto`` is off on a CPU. See
            :mod:`scoresde.training.speed`.
        accumulate: into how many parts a batch is cut, one after the other through the network, their gradients added:
            for batches that the memory does not hold.
    """

    loss: Loss
    steps: int = 10_000
    batch: int = 256
    optimiser: Literal["adam", "muon"] = "adam"
    rate: float = 1e-3
    warmup: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.95
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    dequantise: Literal["uniform", "none"] = "uniform"
    drop: float = 0.0
    evaluate: int = 20
    save_seconds: float = 30.0
    compile: bool | Literal["auto"] = "auto"
    precision: Literal["auto", "float32", "tf32", "bf16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    accumulate: int = 1

    def __post_init__(self):
        for key, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("evaluate", 0), ("seed", 0), ("accumulate", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least {least}")
        for key, most in (("steps", 10**9), ("batch", 10**6), ("seed", 2**63 - 1), ("accumulate", self.batch)):
            if getattr(self, key) > most:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at most {most}")
        for key in ("rate", "clip", "save_seconds"):
            if not 0 < getattr(self, key) < math.inf:
                raise ValueError(f"`{key}`={getattr(self, key)} must be positive and finite")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`betas`={list(self.betas)} must lie in [0, 1); type `betas`=[0.9,0.99]")
        if self.optimiser not in ("adam", "muon"):
            raise ValueError(f"`optimiser`={self.optimiser} must be adam or muon")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum`={self.momentum} must lie in [0, 1); type `momentum`=0.95")
        if not 0 <= self.ema < 1:
            raise ValueError(f"`ema`={self.ema} must lie in [0, 1); type `ema`=0.999, or 0 for the last weights")
        if not 0 <= self.drop < 1:  # at 1 no y is ever told
            raise ValueError(f"`drop`={self.drop} must lie in [0, 1); type `drop`=0.1")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"`schedule`={self.schedule} must be cosine or constant")
        if self.dequantise not in ("uniform", "none"):
            raise ValueError(f"`dequantise`={self.dequantise} must be uniform or none")
        if self.precision not in ("auto", "float32", "tf32", "bf16"):
            raise ValueError(f"`precision`={self.precision} must be auto, float32, tf32 or bf16")
        if self.accumulate > 1 and getattr(self.loss, "of_batch", False):
            raise ValueError(
                f"`accumulate`={self.accumulate}: this loss compares the samples of a whole batch, and in parts "
                f"it would be another loss; type `accumulate`=1"
            )

    def fit(
        self,
        sde: SDE,
        model: nn.Module,
        data: Data,
        folder: Path | None = None,
        record: Log = lambda event: None,
        keep: Collection[int] = (),
        snapshots: Collection[int] = (),
    ) -> nn.Module:
        """The trained model's moving average.

        The training neither depends on torch's global generators nor changes them. Numbers that your own network or
        loss draws from them are functions of the step and not of the row: use :class:`scoresde.sde_lib.Dropout` instead
        of torch's, and the ``draws`` that a loss is given.

        Arguments:
            model: the score model to train, on the device to train on; its weights should have been drawn under
                :meth:`seeded`.
            folder: where checkpoints are kept and looked for; None for none.
            record: told of the loss as it goes.
            keep: after how many updates the average is kept for good in the folder, as ``kept-*``; it decides nothing
                of the training.
            snapshots: after how many updates averages of two lengths are kept, as ``power-*``, of which any other is
                made afterwards (:mod:`scoresde.training.posthoc`); they decide nothing either. A training that was
                begun without them goes on without.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; the step is not taken.
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, with the state saved.
        """
        device = next(model.parameters()).device
        speed = decide(
            model,
            len(data.shape) == 3,
            self.loss.differentiates,
            device,
            self.compile,
            self.precision,
            self.channels_last,
        )
        model.train()
        masks = Masks(model, self.seed)
        with speed.applied(model, device), kept_generators(device) as generators, stopping() as stop:
            ema = EMA(model, self.ema)
            fused = device.type in ("cpu", "cuda")
            optimiser = optimiser_of(model, self.optimiser, self.rate, self.betas, self.momentum, fused)
            batches = Batches(data, self.batch, self.seed, device, centres=self.dequantise == "none")
            parameters = list(model.parameters())
            readings = Readings(device, late=works_ahead(device))

            start, smooth, snapshots = 0, None, set(snapshots)
            found = checkpoint.load_newest(folder) if folder else None
            if found:
                start, smooth = restore(found, model, ema, optimiser), found.state["loss"]
                snapshots |= set(found.state.get("snapshots", ()))
                log.info("resuming at step %s of %s from %s", f"{start:,}", f"{self.steps:,}", folder)
            powers = None
            if snapshots and (found is None or PowerAverages.within(found.tensors)):
                powers = PowerAverages(model)
                if found:
                    powers.load(found.tensors)

            def read(known: list[Reading]) -> None:
                nonlocal smooth, size
                for each in known:
                    if not each.finite:
                        raise self.broken(each, folder)
                    size = each.norm
                    weight = max(0.01, 1 / (each.step + 1))
                    smooth = each.loss if smooth is None else smooth + (each.loss - smooth) * weight

            def save(step: int) -> None:
                read(readings.rest())  # nothing is saved that is not known to be good
                if folder:
                    taken = capture(step, model, ema, optimiser, smooth)
                    if powers is not None:
                        taken = replace(
                            taken,
                            tensors=taken.tensors | powers.tensors(),
                            state=taken.state | {"snapshots": sorted(snapshots)},
                        )
                    checkpoint.save(folder, taken)

            began, saved, size = time.monotonic(), time.monotonic(), math.nan
            with bar(self.steps, start) as progress, closing(batches), masks:
                for step in range(start, self.steps):
                    for group in optimiser.param_groups:
                        group["lr"] = self.rate_at(step)
                    optimiser.zero_grad()
                    reseed(generators, self.seed, "elsewhere", step)
                    loss = self.gradient(sde, model, batches, step, speed, masks)
                    norm = nn.utils.clip_grad_norm_(parameters, self.clip, foreach=True)
                    read(readings.add(step, loss, norm))
                    optimiser.step(readings.broken)  # such an update is skipped where it would be taken
                    ema.update()
                    if powers is not None:
                        powers.update(step + 1)

                    progress.update()
                    done, last = step + 1, step + 1 == self.steps
                    noted = done % max(1, self.steps // 200) == 0 or last
                    judged = self.evaluate and done * self.evaluate // self.steps > step * self.evaluate // self.steps
                    kept = folder and (done in keep or powers is not None and done in snapshots)
                    late = time.monotonic() - saved > self.save_seconds and not last
                    if noted or judged or kept:
                        read(readings.rest())
                    if step - start == 20:  # past the first, slower ones
                        left = (time.monotonic() - began) / 21 * (self.steps - done)
                        log.info("the training will take about %.0f s", left)
                    if noted:
                        waiting = batches.waited / max(time.monotonic() - began, 1e-9)
                        progress.set_postfix_str(f"loss {smooth:.4f}, waited for data {waiting:.1%}", refresh=False)
                        rate = self.rate_at(step)
                        record({"step": done, "loss": smooth, "rate": rate, "gradient": size, "waiting": waiting})
                    if judged:
                        record({"step": done, "held_out_loss": self.held_out(sde, ema.model, data)})
                    # What is kept is kept before any later step-*, so that a resumed training misses none.
                    if folder and done in keep:
                        average = {"ema": ema.model.state_dict()}
                        checkpoint.save(folder, Checkpoint(done, average, {"loss": smooth}), kind="kept")
                    if folder and powers is not None and done in snapshots:
                        checkpoint.save(folder, Checkpoint(done, powers.tensors(), {"loss": smooth}), kind="power")
                    if stop.signal:
                        break
                    if late:
                        save(done)
                        saved = time.monotonic()
                if start < self.steps:
                    save(done)
                    waiting = batches.waited / max(time.monotonic() - began, 1e-9)
                    log.info("the network waited for its data %.1f %% of the time", 100 * waiting)
                if stop.signal:
                    progress.close()
                    hint = "; saved: run the same command to go on" if folder else ""
                    log.warning("stopped at step %s%s", f"{done:,}", hint)
                    stop.leave()
        # frozen, in evaluation mode, and laid out as the store's would be
        return ema.model.to(memory_format=torch.contiguous_format)

    def gradient(
        self, sde: SDE, model: nn.Module, batches: Batches, step: int, speed: Speed, masks: Masks | None = None
    ) -> Tensor:
        """The mean loss of the batch of one step, its gradient left in the parameters.

        Arguments:
            masks: those of the model's dropout; None to leave them to torch's global generator.
        """
        draws, y = batches.draws(step), batches.condition(step)
        y = None if y is None else withheld(y, self.drop, draws)
        scores = [told(model, part) for part in parts_of(y, self.accumulate)]
        x = speed.laid_out(batches(step))
        total, first = x.new_zeros(()), 0
        for score, part in zip(scores, parts_of(x, self.accumulate), strict=True):
            own = draws.part(first, len(part))
            first += len(part)
            if masks is not None:
                masks.at(own)
            with speed.autocast(x.device):
                loss = self.loss(sde, score, part, own).mean()
            if self.accumulate > 1:
                loss = loss * (len(part) / len(x))
            loss.backward()
            total = total + loss.detach()
        return total

    def broken(self, reading: Reading, folder: Path | None) -> FloatingPointError:
        """What a loss or a gradient that is not finite ends the training with."""
        kept = folder is not None and any(folder.glob("step-*"))
        return FloatingPointError(
            f"training stopped before update {reading.step + 1}: the loss is {reading.loss:.4g} and its gradient's "
            f"norm {reading.norm:.4g}. The weights are still those of update {reading.step}"
            f"{f', and the last good checkpoint is in {folder}' if kept else ''}; try a smaller "
            f"training.rate (now {self.rate}), and look for extreme values in the data"
        )

    def rate_at(self, step: int) -> float:
        """The learning rate of the update after ``step`` updates."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return self.rate * warm * fall

    @torch.no_grad()
    def held_out(self, sde: SDE, model: nn.Module, data: Data, count: int = 1024) -> float:
        """The loss on held-out data, with noise that is the same at every call."""
        device = next(model.parameters()).device
        r = data.test[:count].to(device)
        draws = Draws(self.seed, len(r), purpose="held out")
        u = draws.uniform("dequantisation", r) if self.dequantise == "uniform" else None
        x = data.encode(data.dequantise(r, u)).to(torch.float32)
        y = None if data.condition is None else data.condition.encode(data.condition.test[:count]).to(x)
        losses = []
        with kept_generators(device) as generators:
            reseed(generators, self.seed, "elsewhere", "held out")
            for i in range(0, len(x), 256):
                part = x[i : i + 256]
                score = told(model, None if y is None else y[i : i + 256])
                losses.append(self.loss(sde, score, part, draws.part(i, len(part))))
        return float(torch.cat(losses).mean())

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Within it torch's, numpy's and Python's global generators are seeded, for the weights of a network that is
        built there; afterwards they are as they were.
        """
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)
            torch.manual_seed(self.seed)
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)


def told(model: nn.Module, y: Tensor | None) -> nn.Module:
    """The model given y (B, condition); itself where it takes no y."""
    return model if y is None or not getattr(model, "conditional", False) else model.given(y)


def withheld(y: Tensor, share: float, draws: Draws) -> Tensor:
    """y (B, condition), a random share of the rows replaced by zeros, which say that y is not known."""
    return y * (draws.uniform("condition", y, (1,)) >= share) if share else y


@contextmanager
def kept_generators(device: torch.device) -> Iterator[list[torch.Generator]]:
    """torch's global generators for a device, whose states are put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])
        yield generators


def reseed(generators: list[torch.Generator], *parts: object) -> None:
    """Seeds generators by a hash of the parts."""
    for generator in generators:
        generator.manual_seed(seed_of(*parts))


def parts_of(values: Tensor | None, count: int) -> list[Tensor | None]:
    """The rows in so many parts, of equal size but for the last ones."""
    return [None] * count if values is None else list(values.tensor_split(count))


def works_ahead(device: torch.device) -> bool:
    """Whether the device is given work that the loop does not wait for."""
    return device.type == "cuda"


def capture(step: int, model: nn.Module, ema: EMA, optimiser: Optimiser, loss: float | None) -> Checkpoint:
    """Everything that the next update depends on."""
    inner = optimiser.state_dict()
    tensors = {f"{i}.{name}": tensor for i, entry in inner["state"].items() for name, tensor in entry.items()}
    state = {"loss": loss, "ema_updates": ema.updates, "optimiser": inner["param_groups"]}
    groups = {"model": model.state_dict(), "ema": ema.model.state_dict(), "optimiser": tensors}
    return Checkpoint(step, groups, state)


def restore(found: Checkpoint, model: nn.Module, ema: EMA, optimiser: Optimiser) -> int:
    """Puts everything back, and returns the number of updates done."""
    model.load_state_dict(found.tensors["model"])
    ema.model.load_state_dict(found.tensors["ema"])
    ema.updates = found.state["ema_updates"]
    inner: dict = {}
    for key, tensor in found.tensors["optimiser"].items():
        i, name = key.split(".", 1)
        inner.setdefault(int(i), {})[name] = tensor
    optimiser.load_state_dict({"state": inner, "param_groups": found.state["optimiser"]})
    for parameter, state in optimiser.state.items():  # moments lie as their weights do, which a fused update relies on
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
    return found.step


def bar(total: int, start: int) -> tqdm:
    """A progress bar of updates; where nobody looks on, a line every now and then."""
    return tqdm(
        total=total,
        initial=start,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        smoothing=0.05,
    )


class Stop:
    """Which signal asked the run to stop, if any."""

    signal: int | None = None

    def leave(self) -> None:
        """Ends as the signal would have: Ctrl-C as an interrupt, SIGTERM with exit code 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


@contextmanager
def stopping():
    """Within it SIGINT and SIGTERM ask for a stop at the next step; a second one acts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are delivered to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
