"""Score held-out data, or the user's own points, in nats and in bits a dimension."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import Data, read_points
from likelihood import Likelihood
from sde_lib import SDE, BlockNoise, ScoreFn

from .progress import progress
from .record import Record


@dataclass(frozen=True)
class LikelihoodTask:
    """(sde, score, data, record) -> metrics, likelihood.npz and, for planar data, the density as a picture.

    Arguments:
        likelihood: how log p is computed.
        count: how many held-out points; None for 10,000 vectors or 256 pictures, or all where there are fewer.
        points: a file of points in the data's own units to score instead, all of them.
        batch: how many at a time; the results do not depend on it.
        seed: of the probes and of the dequantisation.
        device, dtype: where, and in which precision the score is evaluated.
    """

    likelihood: Likelihood
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f"task.batch={self.batch} must be at least 1")

    def __call__(self, sde: SDE, score: ScoreFn, data: Data, record: Record) -> dict:
        r = self.chosen(data)
        started = time.monotonic()
        result = self.score(sde, score, data, r)
        seconds = time.monotonic() - started
        log_prob, stderr = result["log_prob"], result["probe_stderr"]
        record.arrays("likelihood", **{key: value.numpy() for key, value in result.items() if key != "nfe"})

        nll, nll_stderr = mean_and_stderr(-log_prob)
        metrics = {"count": len(r), "nll_nats": nll, "nll_stderr": nll_stderr}
        if data.levels:
            metrics |= {"bits_per_dim": data.bits_per_dim(nll), "bits_per_dim_stderr": data.bits_per_dim(nll_stderr)}
        if bool((stderr != 0).any()):
            metrics["probe_stderr_nats"] = float(stderr.square().mean().sqrt()) / math.sqrt(len(r))
        metrics |= self.against_truth(sde, score, data, result)
        metrics |= {"nfe": float(result["nfe"]), "seconds": seconds}
        if data.dim == 2 and len(data.shape) == 1:
            record.picture(self.heat_map(sde, score, data, result["x"], record))
        elif len(data.shape) == 3:
            record.picture(self.ranking(data, result, record))
        return metrics

    def chosen(self, data: Data) -> Tensor:
        """The points to score, in data units."""
        if self.points:
            r = read_points(self.points, data.shape, data.levels, data.labels())
            return r[: self.count] if self.count else r
        return data.test[: self.count or (10_000 if len(data.shape) == 1 else 256)]

    def score(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        r: Tensor,
        what: str = "scoring",
        likelihood: Likelihood | None = None,
        dequantise: bool = True,
    ) -> dict[str, Tensor]:
        """x (N, *) as it was scored, log_prob (N,) and probe_stderr (N,) in nats and data units, z (N, *), mean nfe.

        ``dequantise`` is False for points that lie between the levels already, as a picture's do.
        """
        parts, evaluations = [], 0.0
        with progress(what, len(r)) as advance:
            for first in range(0, len(r), self.batch):
                raw = r[first : first + self.batch]
                size = len(raw)
                uniform = BlockNoise(self.seed, first, size, data.shape, torch.float64, "cpu", stream="dequantisation")
                if dequantise:
                    raw = data.dequantise(raw.double() if data.levels is None else raw, uniform.uniform())
                noise = BlockNoise(
                    self.seed, first, size, data.shape, getattr(torch, self.dtype), self.device, stream="probes"
                )
                found = (likelihood or self.likelihood)(
                    sde,
                    score,
                    data.encode(raw).to(self.device, getattr(torch, self.dtype)),
                    noise,
                    on_step=lambda share, first=first, size=size: advance(first, size, share),
                )
                advance(first + size)
                evaluations += found.nfe * size
                parts.append(
                    (
                        raw,
                        found.log_prob.double().cpu() + data.log_det,
                        found.z.cpu(),
                        found.probe_stderr.double().cpu(),
                    )
                )
        x, log_prob, z, stderr = (torch.cat(column) for column in zip(*parts, strict=True))
        return {"x": x, "log_prob": log_prob, "z": z, "probe_stderr": stderr, "nfe": torch.tensor(evaluations / len(r))}

    def against_truth(self, sde: SDE, score: ScoreFn, data: Data, result: dict[str, Tensor]) -> dict:
        """What is known exactly: the data's own density, and the density of an exact score at the start time."""
        metrics = {}
        truth = data.true_log_prob(result["x"])
        if truth is not None and bool(truth.isfinite().all()):
            gap, gap_stderr = mean_and_stderr(truth - result["log_prob"])
            metrics |= {"floor_nats": -float(truth.mean()), "gap_nats": gap, "gap_stderr": gap_stderr}
        exact = getattr(score, "log_prob", None)
        if exact is not None:
            x, z = (
                data.encode(result["x"]).to(self.device, getattr(torch, self.dtype)),
                result["z"].to(self.device, getattr(torch, self.dtype)),
            )
            at_start = exact(x, torch.full((len(x),), sde.eps).to(x)).double().cpu() + data.log_det
            terminal = exact(z, torch.full((len(z),), sde.T).to(z)).double().cpu()
            prior_cost = terminal - sde.prior_log_prob(
                z.double().cpu()
            )  # what N(0, sigma(T)^2 I) in place of p_T takes off log p
            error = (result["log_prob"] + prior_cost - at_start).abs()
            metrics |= {
                "ode_error_mean_nats": float((result["log_prob"] + prior_cost - at_start).mean().abs()),
                "ode_error_max_nats": float(error.max()),
                "prior_cost_nats": float(prior_cost.mean()),
            }
        return metrics

    def ranking(self, data: Data, result: dict[str, Tensor], record: Record) -> Path:
        """The pictures that the model finds most and least likely: what it has learnt, and what it has not."""
        from . import figures

        order = result["log_prob"].argsort(descending=True)
        half = min(64, (len(order) + 1) // 2)
        best, worst = (result["x"][index] for index in (order[:half], order[-half:].flip(0)))
        panels = ("most likely", "least likely")
        return figures.image_grid(best, worst, record.path("likelihood.png"), levels=data.levels, panels=panels)

    def heat_map(self, sde: SDE, score: ScoreFn, data: Data, points: Tensor, record: Record, size: int = 72):
        """The learned density on a rectangle round the data, beside the exact one where that is known."""
        from . import figures

        test = data.test.double()
        low, high = test.amin(0), test.amax(0)
        margin = 0.05 * (high - low)
        axes = [
            torch.linspace(float(a), float(b), size, dtype=torch.float64)
            for a, b in zip(low - margin, high + margin, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).reshape(-1, 2)
        coarse = replace(self.likelihood, rtol=1e-3, atol=1e-3)  # a picture shows no fourth digit
        log_prob = self.score(sde, score, data, grid, what="density", likelihood=coarse, dequantise=False)[
            "log_prob"
        ].reshape(size, size)
        truth = data.true_log_prob(grid)
        return figures.density(
            axes[0],
            axes[1],
            log_prob,
            record.path("density.png"),
            true_log_prob=None if truth is None else truth.reshape(size, size),
            points=np.asarray(points[:500]) if self.points else None,
            labels=data.labels(),
        )


def mean_and_stderr(values: Tensor) -> tuple[float, float]:
    """The mean of values (N,) and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
