r"""Chooses the length of the weights' average after the training (arXiv 2312.02696, section 3).

During a training two averages with power profiles are kept ``snapshots`` times. The averages of other lengths, by
default from a fiftieth to a quarter of the training, are made from them (:mod:`scoresde.training.posthoc`). If a
training in the store did not keep them, it is repeated, to the same weights. Each average is measured at the same
held-out points, with probes and noise of the same seed. The gain of the best length over the network's own average is
taken point by point, so that its standard error is many times smaller than that of either. The best average is written
as a network that ``checkpoint=`` reads.

Lengths are given as sigma_rel, the standard deviation of the profile over the length of the training. The network's own
average, that of the trainer's ``ema``, is reported beside them; after T updates its sigma_rel is about 1/((1 - ema) T).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Dequantisation, Likelihood, UniformDequantisation
from scoresde.sde_lib import SDE, Draws, ScoreFn
from scoresde.tasks.parts.batches import batches
from scoresde.tasks.parts.effort import refuse_error
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.scoring import Scoring
from scoresde.tasks.parts.statistics import mean_and_stderr
from scoresde.training import DenoisingScoreMatching, Loss
from scoresde.training.posthoc import WIDEST

from .task import Job, Task

log = logging.getLogger(__name__)

FAR = 0.05  # profile error, as a share of the profile's norm, beyond which a warning says so


@dataclass(frozen=True)
class EMALength(Task):
    """Finds the best length of the weights' average; see the module's text.

    Writes ema.npz, ema.png, and the best network to the folder ``network``.

    Arguments:
        likelihood: how log p is computed; not used with ``by=loss``.
        dequantisation: which points of a bin stand for its integer, for the likelihood.
        loss: the training's loss, which is measured too, of integers at uniform points of their bins.
        widths: the lengths, as sigma_rel, each above 0 and at most 0.2886.
        snapshots: how often averages are kept during the training, evenly; at least 2.
        by: the measure that decides, ``likelihood`` or ``loss``; the loss is always measured.
        draws: the number of draws of noise per point, for the loss.
        count: the number of held-out points; None for 1,000 vectors or 128 images, or all where there are fewer.
        batch, seed, device, dtype: for scoring; see :class:`scoresde.tasks.LikelihoodTask`.
    """

    conditions: ClassVar[str] = "none"
    refuses_guidance: ClassVar[bool] = True

    likelihood: Likelihood
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    loss: Loss = field(default_factory=DenoisingScoreMatching)
    widths: tuple[float, ...] = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25)
    snapshots: int = 32
    by: Literal["likelihood", "loss"] = "likelihood"
    draws: int = 16
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        if not self.widths or not all(0 < width <= WIDEST for width in self.widths):
            raise ValueError(
                f"`widths`={list(self.widths)} must be shares of the training, each above 0 and at most "
                f"{math.floor(1e4 * WIDEST) / 1e4}, that of the mean of all updates; type for example "
                f"`widths`=[0.03,0.1]"
            )
        for key, least, instead in (("snapshots", 2, 32), ("draws", 1, 16)):
            if getattr(self, key) < least:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least {least}; type `{key}`={instead}")
        if self.by not in ("likelihood", "loss"):
            raise ValueError(f"`by`={self.by} must be likelihood or loss; type `by`=likelihood")
        self.scoring  # noqa: B018 (its own checks)

    @property
    def reports_density(self) -> bool:
        """True if the likelihood decides; see :class:`scoresde.tasks.Task`."""
        return self.by == "likelihood"

    @property
    def scoring(self) -> Scoring:
        """Scores the points with this task's settings."""
        return Scoring(self.likelihood, self.dequantisation, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        refuse_error(self.likelihood, self)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        # the snapshots, and how well each length can be made of them
        averaged = job.networks.averages(self.snapshots)
        score, kept = averaged.model, averaged.snapshots
        if kept is None:
            raise ValueError(
                "task=ema makes averages of what was kept along a training, and there is none: the score is exact, or "
                "its checkpoint= has no power-* folders; choose a network with model=mlp or model=unet, and leave "
                "checkpoint= out"
            )
        widths = sorted(self.widths)
        errors = np.array([kept.error(width) for width in widths])
        if poor := [f"{width:g}" for width, error in zip(widths, errors, strict=True) if error > FAR]:
            log.warning(
                "sigma_rel=%s cannot be made of %s snapshots to within %.0f %%: type task.snapshots=%s, or other "
                "task.widths",
                ", ".join(poor),
                len(kept.paths),
                100 * FAR,
                2 * self.snapshots,
            )
        # the measures of each length at the same points
        r = data.test[: self.count or (1000 if len(data.shape) == 1 else 128)]
        found: dict[str, list[np.ndarray]] = {"loss": []} | ({"nll": []} if self.by == "likelihood" else {})
        for width in (None, *widths):  # None for the training's own average
            network = score if width is None else kept.network(kept.state(width))
            name = "the training's own average" if width is None else f"sigma_rel {width:g}"
            event: dict = {"sigma_rel": width}
            for key, values in found.items():
                measure = self.losses if key == "loss" else self.nll
                values.append(measure(sde, network, data, r, name))
                event |= {key: float(values[-1].mean())}
            record.event(event)
        # the best length
        deciding = "nll" if self.by == "likelihood" else "loss"
        best = int(np.argmin([values.mean() for values in found[deciding][1:]]))
        arrays = {key: np.stack(values[1:]) for key, values in found.items()}
        own = {f"own_{key}": values[0] for key, values in found.items()}
        record.arrays("ema", sigma_rel=np.array(widths), profile_error=errors, **arrays, **own)
        self.show(data, widths, arrays, own, best, record)
        note = {"sigma_rel": widths[best], "profile_error": errors[best], "loss": float(arrays["loss"][best].mean())}
        folder = kept.write(record.path("network"), kept.state(widths[best]), note)
        log.info("the best average is kept: checkpoint=%s", folder)
        if best in (0, len(widths) - 1) and len(widths) > 1:
            log.info("the best length is at an end of task.widths: one beyond it may be better")
        metrics = self.metrics(data, arrays, own, best)
        return metrics | {"best_sigma_rel": widths[best], "profile_error": float(errors[best]), "network": str(folder)}

    def nll(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, name: str) -> np.ndarray:
        """Returns -log p (N,) in nats and data units at points r (N, *); for integers minus the bound on log P.

        Arguments:
            name: the network's name in the title of the progress bar.
        """
        return -self.scoring.score(sde, score, data, r, what=f"scoring {name}")["log_prob"].numpy()

    @torch.no_grad()
    def losses(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, name: str) -> np.ndarray:
        """Returns the loss (N,) at points r (N, *), a mean over draws of noise that are the same for every network."""
        dtype, parts, source = getattr(torch, self.dtype), [], Draws(self.seed, len(r), purpose="task=ema")
        with progress(f"loss, {name}", len(r)) as advance:
            for batch in batches(len(r), self.batch, advance):
                own, total = r[batch.rows].to(self.device), 0.0
                for draw in range(self.draws):
                    draws = source.at(draw).part(batch.first, batch.size)
                    u = draws.uniform("dequantisation", own).to(dtype) if data.levels else None
                    x = data.encode(data.dequantise(own, u)).to(dtype)
                    total = total + self.loss(sde, score, x, draws).double()
                parts.append((total / self.draws).cpu())
        return torch.cat(parts).numpy()

    def metrics(self, data: Data, found: dict[str, np.ndarray], own: dict[str, np.ndarray], best: int) -> dict:
        """Returns the metrics of the best length, and its gain over the network's own average.

        Arguments:
            found: the measures of all lengths, ``loss``, and ``nll`` in nats, (lengths, N) each.
            own: the same of the network's own average, ``own_loss`` and ``own_nll``, (N,) each.
            best: the place of the best length.
        """
        metrics: dict = {"count": found["loss"].shape[1]}
        names = {"nll": ("nll_nats", "nll_stderr", "own_nll_nats", "gain_nats", "gain_stderr")}
        names["loss"] = ("held_out_loss", "held_out_loss_stderr", "own_loss", "loss_gain", "loss_gain_stderr")
        for key in (key for key in names if key in found):
            (value, stderr), gain = (
                mean_and_stderr(found[key][best]),
                mean_and_stderr(own[f"own_{key}"] - found[key][best]),
            )
            metrics |= dict(zip(names[key], (value, stderr, float(own[f"own_{key}"].mean()), *gain), strict=True))
        if data.levels and "nll" in found:
            pairs = (("bits_per_dim", "nll_nats"), ("own_bits_per_dim", "own_nll_nats"))
            pairs += (("gain_bits_per_dim", "gain_nats"), ("gain_bits_per_dim_stderr", "gain_stderr"))
            metrics |= {name: data.bits_per_dim(metrics[key]) for name, key in pairs}
            metrics |= {"bound": self.dequantisation.bound}
        return metrics

    def show(
        self,
        data: Data,
        widths: list[float],
        found: dict[str, np.ndarray],
        own: dict[str, np.ndarray],
        best: int,
        record: Record,
    ) -> None:
        """Draws the measures by the length of the average; the arguments are those of :meth:`metrics`."""
        from scoresde import figures

        unit: Callable[[np.ndarray], np.ndarray] = lambda nats: nats / (data.dim * math.log(2)) if data.levels else nats  # noqa: E731
        titles = {"nll": "bits / dimension" if data.levels else "NLL (nats)", "loss": "held-out loss"}
        panels = []
        for key in (key for key in titles if key in found):
            scale = unit if key == "nll" else (lambda values: values)
            panels.append((titles[key], scale(found[key]), scale(own[f"own_{key}"])))
        record.picture(figures.average_lengths(np.array(widths), panels, best, record.path("ema.png")))
