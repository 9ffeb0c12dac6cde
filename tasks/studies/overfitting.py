r"""The likelihood of training and of held-out data during a training, which shows overfitting.

A network that learns the density raises log p of both; one that memorises the examples raises that of the training data
and lowers that of all others. The average of the weights is kept after each of the ``shares`` of the training. If the
training did not keep them, it is repeated; on the same machine it ends in the same weights. Each average is scored by
its log-likelihood at the same training points and the same held-out points, with the same probes, so that differences
between two steps of the training are paired, point by point.

The training's loss, drawn beneath, shows the same at less cost but less clearly: the largest part of a denoising loss
is noise that no network can predict.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Dequantisation, Likelihood, UniformDequantisation
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.parts.effort import refuse_error
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.scoring import Scoring
from scoresde.tasks.parts.statistics import mean_and_stderr
from scoresde.tasks.task import Job, Task


@dataclass(frozen=True)
class Overfitting(Task):
    """Scores training and held-out data during a training; see the module's text.

    Writes overfitting.npz and overfitting.png.

    Arguments:
        likelihood: how log p is computed.
        dequantisation: which points of a bin stand for its integer.
        shares: the shares of the training's updates after which the network is scored; each in (0, 1].
        count: the number of training points, and of held-out points; None for 1,000 vectors or 128 images, or all where
            there are fewer.
        batch, seed, device, dtype: for scoring; see :class:`scoresde.tasks.LikelihoodTask`.
    """

    conditions: ClassVar[str] = "none"
    reports_density: ClassVar[bool] = True
    refuses_guidance: ClassVar[bool] = True

    likelihood: Likelihood
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    shares: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ValueError(
                f"`shares`={list(self.shares)} must be shares of the training, each above 0 and at most 1; type for "
                f"example `shares`=[0.1,0.3,1]"
            )
        self.scoring  # noqa: B018 (its own checks)

    @property
    def scoring(self) -> Scoring:
        """Scores the points with this task's settings."""
        return Scoring(self.likelihood, self.dequantisation, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        refuse_error(self.likelihood, self)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        network = job.networks.along(self.shares)
        if not network.kept:
            raise ValueError(
                "task=overfitting looks back along a training, and there is none: the score is exact, or its "
                "checkpoint= has no kept-* folders; choose a network with model=mlp or model=unet, and leave "
                "checkpoint= out"
            )
        most = self.count or (1000 if len(data.shape) == 1 else 128)
        train, held_out = data.train[:most], data.test[:most]
        steps, found = sorted(network.kept), []
        for step in steps:
            score = network.kept[step]()
            found.append([self.log_prob(sde, score, data, r, step) for r in (train, held_out)])
            event = {"step": step}
            for key, value in zip(("train_nll_nats", "nll_nats"), found[-1], strict=True):
                event[key] = -float(value.mean())
            record.event(event)
        on_train, on_held_out = (np.stack([values.numpy() for values in part]) for part in zip(*found, strict=True))
        record.arrays("overfitting", step=np.array(steps), log_prob_train=on_train, log_prob_held_out=on_held_out)
        self.show(data, steps, on_train, on_held_out, network.training, record)
        return self.metrics(data, steps, -on_train, -on_held_out)

    def log_prob(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, step: int) -> Tensor:
        """Returns log p (N,) in nats and data units at points r (N, *); for integers the bound on log P."""
        return self.scoring.score(sde, score, data, r, what=f"scoring after {step:,} updates")["log_prob"]

    def metrics(self, data: Data, steps: list[int], train: np.ndarray, held_out: np.ndarray) -> dict:
        """Returns the metrics of the negative log-likelihoods in nats.

        Arguments:
            steps: the numbers of updates, ascending.
            train, held_out: of the training and of the held-out points after each of the steps, (K, N) and (K, M).
        """
        best = int(held_out.mean(1).argmin())
        (nll, nll_stderr), (on_train, _) = (mean_and_stderr(values[-1]) for values in (held_out, train))
        lost, lost_stderr = mean_and_stderr(held_out[-1] - held_out[best])
        found = {
            "count": held_out.shape[1],
            "nll_nats": nll,
            "nll_stderr": nll_stderr,
            "train_nll_nats": on_train,
            "generalisation_gap_nats": nll - on_train,
            "best_step": steps[best],
            "best_nll_nats": float(held_out[best].mean()),
            "overfitting_nats": lost,
            "overfitting_stderr": lost_stderr if best < len(steps) - 1 else 0.0,
        }
        if data.levels:
            bits = {
                key: data.bits_per_dim(found[f"{key}_nats"]) for key in ("nll", "train_nll", "best_nll", "overfitting")
            }
            names = ("bits_per_dim", "train_bits_per_dim", "best_bits_per_dim", "overfitting_bits_per_dim")
            found |= dict(zip(names, bits.values(), strict=True)) | {"bound": self.dequantisation.bound}
        return found

    def show(
        self,
        data: Data,
        steps: list[int],
        train: np.ndarray,
        held_out: np.ndarray,
        training: list[dict],
        record: Record,
    ) -> None:
        """Draws the negative log-likelihoods by the number of updates, above the training's losses.

        Arguments:
            train, held_out: log p, (K, N) and (K, M), in nats.
            training: the events of the training.
        """
        from scoresde import figures

        unit = data.dim * math.log(2) if data.levels else 1.0
        record.picture(
            figures.overfitting_curve(
                np.array(steps),
                -train / unit,
                -held_out / unit,
                training,
                record.path("overfitting.png"),
                label="bits / dimension" if data.levels else "negative log-likelihood (nats)",
            )
        )
