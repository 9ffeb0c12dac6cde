"""Samples of a score, batch by batch, and as files hold them: what several tasks have in common."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE, BlockNoise, ScoreFn


def draw(
    sampler: Sampler,
    sde: SDE,
    score: ScoreFn,
    shape: tuple[int, ...],
    count: int,
    batch: int,
    seed: int,
    device: str,
    dtype: torch.dtype,
    tell: Callable[[int, int, float], None],
) -> Tensor:
    """Samples in model units, (count, *shape), on the CPU; they do not depend on the batch.

    Arguments:
        tell: told of the first sample of a batch, its size and the share of the way done.
    """
    parts = []
    for first in range(0, count, batch):
        size = min(batch, count - first)
        start, noise = (BlockNoise(seed, first, size, shape, dtype, device, stream) for stream in ("prior", "sampler"))

        def on_step(share: float, first: int = first, size: int = size) -> None:
            tell(first, size, share)

        parts.append(sampler(sde, score, start() * sde.prior_std, noise, on_step=on_step).cpu())
    return torch.cat(parts)


def as_data(data: Data, x: Tensor) -> np.ndarray:
    """Samples in model units, (N, *), as the data are: float64, or integers, rounded down, in a byte where they fit."""
    r = data.decode(x.double().cpu())
    if not bool(r.isfinite().all()):
        bad = int((~r.flatten(1).isfinite().all(1)).sum())
        raise FloatingPointError(
            f"{bad} of {len(r)} samples are not finite; try more sampler.steps, another sampler, or dtype=float64"
        )
    if data.levels is None:
        return r.numpy()
    return r.floor().clamp(0, data.levels - 1).numpy().astype(np.uint8 if data.levels <= 256 else np.int64)
