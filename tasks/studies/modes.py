"""The share of samples that each sampler puts in each mode of a mixture; it shows whether the sampler mixes.

A sample belongs to the component that most probably drew it. Where modes are far apart, plain Langevin dynamics cannot
go from one to the other, and its shares are those of its start. Samplers that start from much noise choose a mode while
the modes are not yet separate (Song and Ermon, arXiv 1907.05600, section 3.2.2 and figure 3). Each sampler draws once
per seed, so that the shares have errors. The metrics give the share of the heaviest mode; modes.npz holds those of all.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.metrics import belonging
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE, Counted, ScoreFn
from scoresde.tasks.parts.batches import Advance
from scoresde.tasks.parts.drawing import Drawing
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record
from scoresde.tasks.task import Job, Task


@dataclass(frozen=True)
class Modes(Task):
    """Counts the samples of each mode, sampler by sampler; see the module's text.

    Writes modes.npz and modes.png.

    Arguments:
        samplers: the samplers to compare, by name.
        seeds: the number of draws of each sampler, with the seeds seed ... seed + seeds - 1.
        count: the number of samples per draw; None for 4,000.
        batch: the number of samples per batch; the samples do not depend on it.
        seed: the first seed of the noise.
        device, dtype: where, and in which precision.
    """

    samplers: dict[str, Sampler]
    seeds: int = 5
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        if not self.samplers:
            raise ValueError("`samplers` is empty; type for example +sampler@`samplers.em`=em")
        for key, instead in (("seeds", 5), ("batch", 1024)):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; type `{key}`={instead}")

    def check(self, sde: SDE, data: Data) -> None:
        components = data.components()
        if components is None or len(components[0]) < 2:
            raise ValueError("task=modes needs data that are a mixture of two Gaussians or more; type data=mixture")

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        components = data.components()
        count, truth = self.count or 4000, components[0].double() / components[0].double().sum()
        heavy = int(truth.argmax())
        shares, shown, metrics = {}, {}, {"count": count, "true_share_of_the_heaviest": float(truth[heavy])}
        with progress("sampling", len(self.samplers) * self.seeds * count) as advance:
            done = 0
            for name, sampler in self.samplers.items():
                counted, rows = Counted(score), []
                for seed in range(self.seed, self.seed + self.seeds):

                    def move(first: int, size: int = 0, share: float = 0.0, done: int = done) -> None:
                        advance(done + first, size, share)

                    x = self.draw(sampler, sde, counted, data, count, seed, move)
                    done += count
                    owner = belonging(x.flatten(1).double(), components)
                    rows.append(torch.bincount(owner, minlength=len(truth)).double() / count)
                    shown.setdefault(name, x)
                shares[name] = torch.stack(rows)
                heaviest = shares[name][:, heavy]
                metrics[f"{name}_share_of_the_heaviest"] = float(heaviest.mean())
                metrics[f"{name}_share_std"] = float(heaviest.std()) if len(heaviest) > 1 else math.nan
                metrics[f"{name}_nfe"] = counted.evaluations / (count * self.seeds)
        record.arrays("modes", truth=truth.numpy(), **{name: rows.numpy() for name, rows in shares.items()})
        self.show(data, truth, shares, shown, record)
        return metrics

    def draw(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, data: Data, count: int, seed: int, move: Advance
    ) -> Tensor:
        """Draws samples in model units, shape (count, *), on the CPU.

        Raises:
            FloatingPointError: a sample is not finite.
        """
        drawing = Drawing(sampler, batch=self.batch, seed=seed, device=self.device, dtype=self.dtype)
        x = drawing.draw(sde, score, data.shape, count, advance=move)
        if not bool(x.isfinite().all()):
            raise FloatingPointError("samples are not finite; try smaller Langevin steps, or more steps")
        return x

    def show(
        self, data: Data, truth: Tensor, shares: dict[str, Tensor], samples: dict[str, Tensor], record: Record
    ) -> None:
        """Draws the shares, and of planar data the samples.

        Arguments:
            truth: the true shares (K,).
            shares: by sampler, (seeds, K).
            samples: by sampler, those of the first seed in model units, (count, *).
        """
        from scoresde.figures.modes import mode_shares

        points = None
        if data.dim == 2 and len(data.shape) == 1:
            points = {name: data.decode(x.double()).numpy() for name, x in samples.items()}
        test = data.test.numpy() if points else None
        rows = {name: share.numpy() for name, share in shares.items()}
        record.picture(mode_shares(truth.numpy(), rows, record.path("modes.png"), points, test))
