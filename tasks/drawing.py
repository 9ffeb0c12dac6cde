"""Samples of a score, batch by batch: what tasks that compare several samplers or models have in common."""

from collections.abc import Callable

import torch
from torch import Tensor

from samplers import Sampler
from sde_lib import SDE, BlockNoise, ScoreFn


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
