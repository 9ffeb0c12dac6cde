r"""The training loop, one page read from top to bottom.

A run is a pure function of its configuration and ``seed``: every random number is a function of the seed, its use, the
step and the row (:class:`scoresde.sde_lib.Draws`), and no generator has a state that matters. Stopping and resuming, in
the middle of an epoch too, gives bit for bit the weights of an uninterrupted run (on one machine, with one number of
threads). Cutting the batch into parts changes its gradient by rounding errors only.
"""

import logging
import math
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
from .optimiser import optimiser_of
from .speed import Reading, Readings, Speed, decide
from .state import TrainingState
from .stop import stopping

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
        """Trains the model and returns its moving average.

        The training neither depends on torch's global generators nor changes them. Numbers that your own network or
        loss draws from them are functions of the step and not of the row: use :class:`scoresde.sde_lib.Dropout` instead
        of torch's, and the ``draws`` that a loss is given.

        Arguments:
            model: the score model to train, on the device to train on. Draw its weights under :meth:`seeded`.
            folder: the folder of the checkpoints, from which an interrupted training is resumed; None for none.
            record: receives the loss and the held-out loss as events.
            keep: the numbers of updates after which the average is kept for good, as ``kept-*``.
            snapshots: the numbers of updates after which averages of two lengths are kept, as ``power-*``, from which
                an average of any length can be made (:mod:`scoresde.training.posthoc`). A training that began without
                them is resumed without them. Neither they nor ``keep`` change the training.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; that update is not made.
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the state is saved.
        """
        device = next(model.parameters()).device
        speed = self.speed_of(model, data, device)
        model.train()
        masks = Masks(model, self.seed)
        with speed.applied(model, device), kept_generators(device) as generators, stopping() as stop:
            state = self.state_of(model, device)
            batches = Batches(data, self.batch, self.seed, device, centres=self.dequantise == "none")
            found = checkpoint.load_newest(folder) if folder else None
            state.begin(found, snapshots)
            start = done = found.step if found else 0
            if found:
                log.info("resuming at step %s of %s from %s", f"{start:,}", f"{self.steps:,}", folder)
            run = Run(self, state, batches, Readings(device, late=works_ahead(device)), folder, found)
            with bar(self.steps, start) as progress, closing(batches), masks:
                for step in range(start, self.steps):
                    # update
                    state.optimiser.zero_grad()
                    reseed(generators, self.seed, "elsewhere", step)
                    loss = self.gradient(sde, model, batches, step, speed, masks)
                    norm = nn.utils.clip_grad_norm_(state.parameters, self.clip, foreach=True)
                    run.read(run.readings.add(step, loss, norm))
                    state.update(step, self.rate_at(step), run.readings.broken)
                    progress.update()
                    done = step + 1

                    # reports
                    reported, evaluated = self.reports_at(done), self.evaluates_at(done)
                    if reported or evaluated:
                        run.read_rest()
                    if step - start == 20:  # the first updates are slower
                        log.info("the training will take about %.0f s", run.seconds / 21 * (self.steps - done))
                    if reported:
                        record(run.report(step, progress))
                    if evaluated:
                        record({"step": done, "held_out_loss": self.held_out(sde, state.ema.model, data)})

                    # checkpoints; averages come before any later step-*, so that a resumed training has them all
                    run.keep_averages(done, keep)
                    if stop.signal:
                        break
                    if done < self.steps and run.is_due():
                        run.save(done)
                if start < self.steps:
                    run.save(done)
                    log.info("the network waited for its data %.1f %% of the time", 100 * run.waiting)
                if stop.signal:
                    progress.close()
                    run.warn_of_stop(done)
                    stop.leave()
        # frozen, in evaluation mode, and contiguous like a network from the store
        return state.ema.model.to(memory_format=torch.contiguous_format)

    def speed_of(self, model: nn.Module, data: Data, device: torch.device) -> Speed:
        """Returns the precision, layout and compilation of this training."""
        images, wanted = len(data.shape) == 3, (self.compile, self.precision, self.channels_last)
        return decide(model, images, self.loss.differentiates, device, *wanted)

    def state_of(self, model: nn.Module, device: torch.device) -> TrainingState:
        """Returns the state before the first update."""
        fused = device.type in ("cpu", "cuda")
        optimiser = optimiser_of(model, self.optimiser, self.rate, self.betas, self.momentum, fused)
        return TrainingState(model, EMA(model, self.ema), optimiser)

    def reports_at(self, done: int) -> bool:
        """Returns whether the loss is reported after ``done`` updates: about 200 times in the training."""
        return done % max(1, self.steps // 200) == 0 or done == self.steps

    def evaluates_at(self, done: int) -> bool:
        """Returns whether the held-out loss is measured after ``done`` updates: ``evaluate`` times in the training."""
        return done * self.evaluate // self.steps > (done - 1) * self.evaluate // self.steps

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


class Run:
    """The losses and the checkpoints of one training on its way.

    Arguments:
        trainer: whose training it is.
        state: what is saved.
        batches: the training data.
        readings: the losses of the updates.
        folder: where checkpoints are kept; None for none.
        found: the checkpoint that the training is resumed from; None for a new training.

    Attributes:
        loss: the smoothed loss, None before the first reading.
        norm: the newest gradient's norm before clipping.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: TrainingState,
        batches: Batches,
        readings: Readings,
        folder: Path | None,
        found: Checkpoint | None,
    ):
        self.trainer, self.state, self.batches = trainer, state, batches
        self.readings, self.folder = readings, folder
        self.loss: float | None = found.state["loss"] if found else None
        self.norm = math.nan
        self.began = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """The wall time since the training began or was resumed."""
        return time.monotonic() - self.began

    @property
    def waiting(self) -> float:
        """The share of the wall time for which the network waited for its data."""
        return self.batches.waited / max(self.seconds, 1e-9)

    def read(self, readings: list[Reading]) -> None:
        """Smooths losses as they come in.

        Raises:
            FloatingPointError: a loss or a gradient is not finite.
        """
        for each in readings:
            if not each.finite:
                raise self.broken(each)
            self.norm = each.norm
            weight = max(0.01, 1 / (each.step + 1))
            self.loss = each.loss if self.loss is None else self.loss + (each.loss - self.loss) * weight

    def read_rest(self) -> None:
        """Waits for the losses of all updates so far."""
        self.read(self.readings.rest())

    def broken(self, reading: Reading) -> FloatingPointError:
        """Returns the error of a loss or a gradient that is not finite."""
        saved = self.folder is not None and any(self.folder.glob("step-*"))
        return FloatingPointError(
            f"training stopped before update {reading.step + 1}: the loss is {reading.loss:.4g} and its gradient's "
            f"norm {reading.norm:.4g}. The weights are still those of update {reading.step}"
            f"{f', and the last good checkpoint is in {self.folder}' if saved else ''}; try a smaller "
            f"training.rate (now {self.trainer.rate}), and look for extreme values in the data"
        )

    def report(self, step: int, progress: tqdm) -> dict:
        """Shows the smoothed loss at the progress bar, and returns the event of the update after ``step`` updates."""
        waiting = self.waiting
        progress.set_postfix_str(f"loss {self.loss:.4f}, waited for data {waiting:.1%}", refresh=False)
        rate = self.trainer.rate_at(step)
        return {"step": step + 1, "loss": self.loss, "rate": rate, "gradient": self.norm, "waiting": waiting}

    def warn_of_stop(self, done: int) -> None:
        """Warns that a signal stopped the training after ``done`` updates."""
        hint = "; saved: run the same command to go on" if self.folder else ""
        log.warning("stopped at step %s%s", f"{done:,}", hint)

    def is_due(self) -> bool:
        """Returns whether ``save_seconds`` have passed since the last checkpoint."""
        return time.monotonic() - self.saved > self.trainer.save_seconds

    def save(self, done: int) -> None:
        """Writes the checkpoint ``step-*`` after ``done`` updates, once all their losses are known to be finite."""
        self.read_rest()
        if self.folder:
            checkpoint.save(self.folder, self.state.capture(done, self.loss))
        self.saved = time.monotonic()

    def keep_averages(self, done: int, keep: Collection[int]) -> None:
        """Writes ``kept-*`` and ``power-*`` if the averages after ``done`` updates are among those asked for."""
        average, powers = done in keep, done in self.state.snapshots
        if not self.folder or not (average or powers):
            return
        self.read_rest()
        if average:
            tensors = {"ema": self.state.ema.model.state_dict()}
            checkpoint.save(self.folder, Checkpoint(done, tensors, {"loss": self.loss}), kind="kept")
        if powers:
            tensors = self.state.powers.tensors()
            checkpoint.save(self.folder, Checkpoint(done, tensors, {"loss": self.loss}), kind="power")


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
