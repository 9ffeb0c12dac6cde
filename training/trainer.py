r"""The training loop.

A training is a pure function of its configuration and ``seed``: every random number is a function of the seed, its use,
the step and the row (:class:`scoresde.sde_lib.Draws`), and the state of no generator matters. A training that is
stopped and resumed, also in the middle of an epoch, ends in bit for bit the same weights as an uninterrupted one (on
the same machine, with the same number of threads). Splitting the batch changes its gradient by rounding errors only.
"""

import logging
import math
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

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
"""Receives an event of the training, a flat dictionary with ``step`` and values such as ``loss``."""


@dataclass(frozen=True)
class Trainer:
    """Fits a score model, or another module that the loss takes, to data.

    Arguments:
        loss: the objective.
        steps: the number of updates. It cannot be extended later, because the schedule of the rate depends on it.
        batch: the number of samples in an update.
        optimiser: ``adam``, or ``muon`` for Muon on weight matrices and Adam on the other weights; see
            :mod:`scoresde.training.muon`.
        rate: the learning rate before the factors of warm-up and schedule; Muon's steps are scaled to the size of
            Adam's.
        warmup: the number w of updates of the warm-up, whose factors are 1/(w + 1), ..., w/(w + 1).
        schedule: ``cosine`` lowers the rate along half a cosine, to 0 after the last update; ``constant`` keeps it.
        betas: Adam's decays of the first and the second moment.
        momentum: Muon's decay of its moment.
        clip: the largest norm of the gradient; longer gradients are scaled down to it.
        ema: the decay of the moving average of the weights, which is the result of the training.
        seed: the seed of the initial weights, the order of the data and the noise.
        dequantise: ``uniform`` puts integers at random places in their bins, anew in every batch; ``none`` puts them at
            the centres of their bins, as truncated-normal dequantisation of the likelihood needs.
        drop: for data with a condition y, the share of examples whose y is withheld, so that the network also learns
            p(x), which classifier-free guidance needs.
        evaluate: the number of times that the held-out loss is measured, at most once an update; 0 for never.
        save_seconds: the wall time between checkpoints, in seconds.
        compile, precision, channels_last: options that make an update faster; ``auto`` is off except on CUDA. See
            :mod:`scoresde.training.speed`.
        accumulate: the number of parts into which a batch is split. They pass through the network one after another and
            their gradients are added, for batches that do not fit into memory.
    """

    only_with: ClassVar[dict] = {"momentum": ("optimiser", ("muon",))}

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
        if not 0 <= self.drop < 1:  # at 1 the network never sees a y
            raise ValueError(f"`drop`={self.drop} must lie in [0, 1); type `drop`=0.1")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"`schedule`={self.schedule} must be cosine or constant")
        if self.dequantise not in ("uniform", "none"):
            raise ValueError(f"`dequantise`={self.dequantise} must be uniform or none")
        if self.precision not in ("auto", "float32", "tf32", "bf16"):
            raise ValueError(f"`precision`={self.precision} must be auto, float32, tf32 or bf16")
        if self.accumulate > 1 and getattr(self.loss, "of_batch", False):
            raise ValueError(
                f"`accumulate`={self.accumulate}: this loss compares the samples of a whole batch, and would be "
                f"another loss in parts; type `accumulate`=1"
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
        identity: str | None = None,
        show: bool = True,
    ) -> nn.Module:
        """Trains the model and returns its moving average.

        The training neither depends on torch's global generators nor changes them. What your own network or loss draws
        from them depends on the step and not on the row: use :class:`scoresde.sde_lib.Dropout` and a loss's ``draws``.

        Arguments:
            sde: the forward process; None if the loss takes none.
            model: the model to train, on the device to train on. Draw its weights under :meth:`seeded`.
            folder: the folder of the checkpoints, whose newest is resumed, or returned if finished; None for none.
            record: receives the loss and the held-out loss as events.
            keep: the numbers of updates after which the average is kept for good, as ``kept-*``; changes no update.
            snapshots: the same for two averages of :mod:`scoresde.training.posthoc`, as ``power-*``, in new trainings.
            identity: the hash of the network's identity, which checkpoints record; one of another is not resumed.
            show: whether a progress bar is shown.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; that update is not made.
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the state is saved.
            OSError, ValueError, RuntimeError: a checkpoint cannot be written or resumed; an option of speed is refused.
        """
        device = next(model.parameters()).device
        speed = self.speed_of(model, data, device)
        model.train()
        masks = Masks(model, self.seed)
        with speed.applied(model, device), kept_generators(device) as generators, stopping() as stop:
            state = self.state_of(model, device)
            batches = Batches(data, self.batch, self.seed, device, centres=self.dequantise == "none")
            saved = checkpoint.load_newest(folder, identity) if folder else None
            state.begin(saved, snapshots)
            start = done = saved.step if saved else 0
            if saved:
                log.info("resuming at step %s of %s from %s", f"{start:,}", f"{self.steps:,}", folder)
            run = Run(self, state, batches, Readings(device, late=works_ahead(device)), folder, saved, identity)
            with bar(self.steps, start, show) as progress, closing(batches), masks:
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
                    if done - start == 21:  # the first updates are slower
                        log.info("the training will take about %.0f s", run.seconds / 21 * (self.steps - done))
                    if self.reports_at(done):
                        record(run.report(step, progress))
                    if self.evaluates_at(done):
                        run.read_rest()
                        record({"step": done, "held_out_loss": self.held_out(sde, state.ema.model, data)})

                    # checkpoints; averages come before any later step-*, so that a resumed training has them all
                    run.keep_averages(done, keep)
                    if stop.signal:
                        break
                    if done < self.steps and run.is_due():
                        run.save(done)
                if start < self.steps:
                    run.end(done)
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
        """Returns whether the loss is reported after ``done`` updates: every ``steps // 200`` ones, and at the end."""
        return done % max(1, self.steps // 200) == 0 or done == self.steps

    def evaluates_at(self, done: int) -> bool:
        """Returns whether the held-out loss is measured after ``done`` updates: ``evaluate`` times if steps allow."""
        return done * self.evaluate // self.steps > (done - 1) * self.evaluate // self.steps

    def gradient(
        self, sde: SDE, model: nn.Module, batches: Batches, step: int, speed: Speed, masks: Masks | None = None
    ) -> Tensor:
        """Returns the mean loss of the batch of one step, a scalar, and adds its gradient to those of the parameters.

        Arguments:
            masks: the masks of the model's dropout; None to draw them from torch's global generator.
        """
        draws, y = batches.draws(step), batches.condition(step)
        y = None if y is None else withheld(y, self.drop, draws)
        scores = [conditioned_on(model, part) for part in parts_of(y, self.accumulate)]  # one for each part
        x = speed.laid_out(batches(step))
        total, first = x.new_zeros(()), 0
        for score, part in zip(scores, parts_of(x, self.accumulate), strict=True):
            part_draws = draws.part(first, len(part))
            first += len(part)
            if masks is not None:
                masks.at(part_draws)
            with speed.autocast(x.device):
                loss = self.loss(sde, score, part, part_draws).mean()
            if self.accumulate > 1:
                loss = loss * (len(part) / len(x))
            loss.backward()
            total = total + loss.detach()
        return total

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of the update after ``step`` updates."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return self.rate * warm * fall

    @torch.no_grad()
    def held_out(self, sde: SDE, model: nn.Module, data: Data, count: int = 1024) -> float:
        """Returns the mean loss of the first ``count`` held-out examples, with the same noise at every call."""
        device = next(model.parameters()).device
        r = data.test[:count].to(device)
        draws = Draws(self.seed, len(r), purpose="held out")
        u = draws.uniform("dequantisation", r) if self.dequantise == "uniform" else None
        x = data.encode(data.dequantise(r, u)).to(torch.float32)
        y = None if data.condition is None else data.condition.encode(data.condition.test[:count]).to(x)
        losses = []
        with kept_generators(device) as generators:
            reseed(generators, self.seed, "elsewhere", "held out")
            for i in range(0, len(x), 256):  # in parts, to limit the memory
                part = x[i : i + 256]
                score = conditioned_on(model, None if y is None else y[i : i + 256])
                losses.append(self.loss(sde, score, part, draws.part(i, len(part))))
        return float(torch.cat(losses).mean())

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """A context for drawing a network's initial weights.

        It seeds torch's, numpy's and Python's global generators, and restores their states afterwards, except for that
        of mps.
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
    """The losses and the checkpoints of one training.

    Arguments:
        trainer: the trainer.
        state: the state to save.
        batches: the training data.
        readings: the losses and gradient norms of the updates.
        folder: the folder of the checkpoints; None for none.
        saved: the checkpoint that is resumed; None for a new training.
        identity: the hash of the network's identity, for the checkpoints.

    Attributes:
        loss: the smoothed loss so far; None before the first update.
        norm: the newest gradient's norm before clipping.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: TrainingState,
        batches: Batches,
        readings: Readings,
        folder: Path | None,
        saved: Checkpoint | None,
        identity: str | None,
    ):
        self.trainer, self.state, self.batches = trainer, state, batches
        self.readings, self.folder, self.identity = readings, folder, identity
        self.loss = saved.state["loss"] if saved else None
        self.norm = math.nan
        self.began = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """The wall time since the training began or was resumed."""
        return time.monotonic() - self.began

    @property
    def waiting(self) -> float:
        """The share of the wall time that the loop spent on making batches; see :class:`Batches`."""
        return self.batches.waited / max(self.seconds, 1e-9)

    def read(self, readings: list[Reading]) -> None:
        """Adds losses to the smoothed loss: the mean of the first 100, then an exponential average of weight 0.01.

        Raises:
            FloatingPointError: a loss or a gradient is not finite.
        """
        for reading in readings:
            if not reading.finite:
                raise self.broken(reading)
            self.norm = reading.norm
            weight = max(0.01, 1 / (reading.step + 1))
            self.loss = reading.loss if self.loss is None else self.loss + (reading.loss - self.loss) * weight

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
        """Shows the smoothed loss at the progress bar, and returns the event of the update after ``step`` updates.

        The event holds the number of updates, the smoothed loss, the learning rate, the gradient's norm before clipping
        and :attr:`waiting`.
        """
        self.read_rest()
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
            checkpoint.save(self.folder, replace(self.state.capture(done, self.loss), identity=self.identity))
        self.saved = time.monotonic()

    def end(self, done: int) -> None:
        """Writes the last checkpoint, and logs :attr:`waiting`."""
        self.save(done)
        log.info("the network waited for its data %.1f %% of the time", 100 * self.waiting)

    def keep_averages(self, done: int, keep: Collection[int]) -> None:
        """Writes ``kept-*`` and ``power-*`` if the averages after ``done`` updates are among those asked for."""
        average, powers = done in keep, done in self.state.snapshots
        if not self.folder or not (average or powers):
            return
        self.read_rest()
        found = [("kept", {"ema": self.state.ema.model.state_dict()})] if average else []
        found += [("power", self.state.powers.tensors())] if powers else []
        for kind, tensors in found:
            checkpoint.save(self.folder, Checkpoint(done, tensors, {"loss": self.loss}, self.identity), kind)


def conditioned_on(model: nn.Module, y: Tensor | None) -> nn.Module:
    """Returns the model with its condition set to y (B, condition); the model itself if it takes none or y is None."""
    return model if y is None or not getattr(model, "conditional", False) else model.given(y)


def withheld(y: Tensor, share: float, draws: Draws) -> Tensor:
    """Returns y (B, condition) with each row replaced by zeros, which stand for p(x), with probability ``share``."""
    return y * (draws.uniform("condition", y, (1,)) >= share) if share else y


@contextmanager
def kept_generators(device: torch.device) -> Iterator[list[torch.Generator]]:
    """A context that yields torch's global generators of the CPU and, for a CUDA device, of that device, and restores
    their states afterwards.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])
        yield generators


def reseed(generators: list[torch.Generator], *parts: object) -> None:
    """Seeds generators with a hash of the parts."""
    for generator in generators:
        generator.manual_seed(seed_of(*parts))


def parts_of(values: Tensor | None, count: int) -> list[Tensor | None]:
    """Splits the rows into ``count`` parts of equal size, up to one row; None gives as many times None."""
    return [None] * count if values is None else list(values.tensor_split(count))


def works_ahead(device: torch.device) -> bool:
    """Returns whether losses are read late, so that the loop goes on before the device has finished: on CUDA only."""
    return device.type == "cuda"


def bar(total: int, start: int, show: bool = True) -> tqdm:
    """Returns a progress bar of updates; without a terminal it prints a line at most every 15 s."""
    return tqdm(
        disable=not show,
        total=total,
        initial=start,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        smoothing=0.05,
    )
