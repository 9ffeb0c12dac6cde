"""Draws samples of a score batch by batch, and converts them to what files hold."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.samplers import Film, Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, BlockNoise, ScoreFn

from .batches import Advance, Batch, batches, check_batch
from .conditions import conditioned_on
from .progress import progress


@dataclass(frozen=True)
class Drawing:
    """Draws samples. Sample number i depends on the seed and on i, and not on the batch.

    Arguments:
        sampler: turns noise into samples.
        tempering: the temperature of the samples, and how it is reached.
        batch: the number of samples per batch.
        seed: the seed of the noise.
        device, dtype: where, and in which precision.
    """

    sampler: Sampler
    tempering: Tempering = field(default_factory=TemperedNoise)
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_batch(self.batch)

    def draw(
        self,
        sde: SDE,
        score: ScoreFn,
        shape: tuple[int, ...],
        count: int,
        y: Tensor | None = None,
        film: Film | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        """Returns samples in model units, (count, *shape), on the CPU.

        Arguments:
            y: of each sample, (count, condition), or of all, (1, condition), as networks take it; None without a
                condition.
            film: records the trajectories of the first samples, within the first batch.
            advance: moves the caller's progress bar; if None, the call shows its own bar.
        """
        if advance is None:
            with progress("sampling", count) as advance:
                return self.draw(sde, score, shape, count, y, film, advance)
        parts = [
            self.part(sde, score, shape, batch, y, None if batch.first else film).cpu()
            for batch in batches(count, self.batch, advance)
        ]
        return torch.cat(parts)

    def part(
        self,
        sde: SDE,
        score: ScoreFn,
        shape: tuple[int, ...],
        batch: Batch,
        y: Tensor | None = None,
        film: Film | None = None,
    ) -> Tensor:
        """Returns the samples of one batch in model units, (size, *shape), on the device.

        Arguments:
            batch: the numbers of the samples.
            y: of all samples, not only of this batch; see :meth:`draw`.
        """
        dtype = getattr(torch, self.dtype)
        start, noise = noises(batch, self.seed, shape, dtype, self.device)
        return self.sampler(
            sde,
            self.tempering.score(sde, conditioned_on(score, y, batch.rows, self.device, dtype)),
            start() * (self.tempering.noise * sde.prior_std),
            self.tempering.randn_like(noise),
            film=film,
            on_step=batch.on_step,
        )


def noises(
    batch: Batch, seed: int, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> tuple[BlockNoise, BlockNoise]:
    """Returns the noise from which the samples of a batch start, and the noise of the sampler's steps."""
    return batch.noise(seed, shape, dtype, device, "prior"), batch.noise(seed, shape, dtype, device, "sampler")


def as_data(data: Data, x: Tensor) -> np.ndarray:
    """Converts samples x (N, *) in model units to what files hold: float64 in data units; for integer data the
    integers, rounded down and limited to the levels, as uint8 up to 256 levels and as int64 beyond.

    Raises:
        FloatingPointError: a sample is not finite.
    """
    r = data.decode(x.double().cpu())
    if not bool(r.isfinite().all()):
        bad = int((~r.flatten(1).isfinite().all(1)).sum())
        raise FloatingPointError(
            f"{bad} of {len(r)} samples are not finite; try more sampler.steps, another sampler, or dtype=float64"
        )
    if data.levels is None:
        return r.numpy()
    return r.floor().clamp(0, data.levels - 1).numpy().astype(np.uint8 if data.levels <= 256 else np.int64)
