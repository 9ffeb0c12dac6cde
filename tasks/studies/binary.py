"""Draws rows of bits from the binomial chain (:mod:`scoresde.sde_lib.binary`), and bounds held-out rows in bits.

``bound_bits`` is the mean over scored rows of an upper bound on -log2 P, with its standard error over rows and noise
together, of which ``noise_stderr_bits`` is the noise's part. It is the sum of ``prior_bits``, ``diffusion_bits`` and
``reconstruction_bits``. If the distribution of the data is known, ``floor_bits`` is the mean of -log2 P over the same
rows, ``gap_bits`` the difference, and ``valid_share`` the share of drawn rows with P > 0.
"""

import math
import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import BinaryBound
from scoresde.samplers import Film, binary_ancestral
from scoresde.sde_lib import BinaryChain, ScoreFn
from scoresde.tasks.parts.batches import batches, check_batch
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.drawing import noises
from scoresde.tasks.parts.points import points_of
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.statistics import mean_and_stderr
from scoresde.tasks.task import Job, Task

COLUMNS = ("log_prob", "prior", "diffusion", "reconstruction", "stderr")  # written for each row


@dataclass(frozen=True)
class Binary(Task):
    """Draws rows of bits, and bounds the probability of held-out rows or of the user's.

    Writes samples.npz, bound.npz, bits.png and bound.png.

    Arguments:
        bound: how many of the bound's terms are evaluated.
        count: the number of rows to draw, and of held-out rows to score; None for 2,000 of each, or all where there are
            fewer.
        points: a file of rows of 0 and 1 to score instead of held-out rows: ``count`` of them, drawn at random, or all.
        batch: the number of rows per batch; the results do not depend on it.
        seed: the seed of the noise.
        device, dtype: where, and in which precision the network is evaluated.
    """

    bound: BinaryBound = field(default_factory=BinaryBound)
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    process: ClassVar[type] = BinaryChain

    def __post_init__(self):
        check_batch(self.batch)

    def check(self, sde: BinaryChain, data: Data) -> None:
        if data.levels != 2:
            what = f"{data.levels} levels" if data.levels else "continuous"
            raise ValueError(
                f"task=binary is for data of two levels, and these are {what}; type for example data=heartbeat, or "
                f"data=arrays data.levels=2 for a file of 0 and 1"
            )
        points_of(data, self.points, self.count if self.points else 1)

    def __call__(self, job: Job) -> dict:
        chain, data, record = job.sde, job.data, job.record
        logits = job.networks.score().model
        count = self.count or 2000
        started, film = time.monotonic(), Film(rows=3, frames=41)
        samples = self.draw(chain, logits, data.shape, count, film)
        k = points_of(data, self.points, self.count if self.points else count, quiet=True)
        found = self.score(chain, logits, data, k)
        seconds = time.monotonic() - started
        columns = columns_of(data)
        record.arrays("samples", x=samples.numpy().astype(np.uint8), **columns)
        record.arrays("bound", x=k.numpy(), **{key: found[key].numpy() for key in COLUMNS}, **columns)

        bits = {name: found[name] / math.log(2) for name in COLUMNS}
        bound, stderr = mean_and_stderr(-bits["log_prob"])
        metrics = {"count": count, "bound_bits": bound, "bound_stderr": stderr}
        metrics |= {f"{name}_bits": float(bits[name].mean()) for name in ("prior", "diffusion", "reconstruction")}
        metrics["noise_stderr_bits"] = float(bits["stderr"].square().mean().sqrt()) / math.sqrt(len(k))
        truth, drawn = data.true_log_prob(k), data.true_log_prob(samples)
        if truth is not None:
            valid = drawn.isfinite().double()
            gap, gap_stderr = mean_and_stderr(truth / math.log(2) - bits["log_prob"])
            metrics |= {"floor_bits": -float(truth.mean()) / math.log(2), "gap_bits": gap, "gap_stderr": gap_stderr}
            share, share_stderr = mean_and_stderr(valid)
            metrics |= {"valid_share": share, "valid_stderr": share_stderr}
        metrics |= {"bits_per_dim": bound / data.dim, "seconds": seconds}
        self.show(data, k, samples, None if drawn is None else ~drawn.isfinite(), film, found["terms"], record)
        return metrics

    def draw(self, chain: BinaryChain, logits: ScoreFn, shape: tuple[int, ...], count: int, film: Film) -> Tensor:
        """Draws rows of 0 and 1, shape (count, *shape), int64, and fills the film from the first batch."""
        parts, dtype = [], getattr(torch, self.dtype)
        with progress("sampling", count) as advance:
            for batch in batches(count, self.batch, advance):
                start, noise = noises(batch, self.seed, shape, dtype, self.device)
                x = binary_ancestral(
                    chain, logits, start(), noise, film=None if batch.first else film, on_step=batch.on_step
                )
                parts.append((x > 0).long().cpu())
        return torch.cat(parts)

    def score(self, chain: BinaryChain, logits: ScoreFn, data: Data, k: Tensor) -> dict[str, Tensor]:
        """Returns the columns ``COLUMNS`` of the rows k (N, *) of 0 and 1 in nats, (N,) each, and terms (T + 1,): the
        means of L_0, L_1, ..., L_T over the rows, NaN where the random choice of terms took none.
        """
        parts, sums, draws, dtype = [], 0.0, 0.0, getattr(torch, self.dtype)
        with progress("bounding", len(k)) as advance:
            for batch in batches(len(k), self.batch, advance):
                x = (2.0 * k[batch.rows].double() - 1).to(self.device, dtype)
                found = self.bound(
                    chain,
                    logits,
                    x,
                    batch.noise(self.seed, data.shape, dtype, self.device, "bound"),
                    on_step=batch.on_step,
                )
                sums, draws = sums + found.sums.double().cpu(), draws + found.draws.double().cpu()
                terms = (found.model_log_prob, found.prior, found.diffusion, found.reconstruction, found.stderr)
                parts.append([term.double().cpu() for term in terms])  # bits have no units
        result = {name: torch.cat(column) for name, column in zip(COLUMNS, zip(*parts, strict=True), strict=True)}
        first, last = (result[name].mean()[None] for name in ("reconstruction", "prior"))
        return {**result, "terms": torch.cat([first, sums / draws, last])}

    def show(
        self, data: Data, k: Tensor, samples: Tensor, wrong: Tensor | None, film: Film, terms: Tensor, record: Record
    ) -> None:
        """Draws rows beside data, and the terms of the bound.

        Arguments:
            k, samples: the scored and the drawn rows of 0 and 1.
            wrong: whether a drawn row has P = 0, (count,); None if P is unknown.
            terms: of :meth:`score`, in nats.
        """
        from scoresde import figures

        states = [(state > 0).flatten(1) for state in film.states]
        path = record.path("bits.png")
        record.picture(figures.bit_rows(samples.flatten(1), k.flatten(1), states, film.times, path, wrong=wrong))
        record.picture(figures.bound_terms(terms / math.log(2), None, record.path("bound.png"), unit="bits a row"))
