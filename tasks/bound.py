"""The variational bound of the ancestral chain (:mod:`scoresde.likelihood.bound`) beside the ODE's likelihood.

``*_nats`` are nats of a whole point, in data units; ``*_bits_per_dim`` are bits per dimension. ``bound`` is ``prior``
(L_N) + ``diffusion`` (the sum of all L_{n-1}) + ``reconstruction`` (L_0), each with its standard error over the points,
which includes the noise; ``noise_stderr_nats`` is the noise's part of the bound's standard error.

There are two gaps, each with its standard error. ``gap_nats`` is the bound less the ODE's negative log-likelihood of
the same points: for an exact score it is the cost of the chain's steps; a network's chain and its probability flow are
two models, and the gap has either sign. ``bound_gap_nats`` is the bound less ``floor_nats``, the entropy of the data as
estimated from these points, if their density is known: the cost of the network and of the chain's steps together.

For integers the decoder decides which points are scored. ``discretised`` takes the bins' centres and the decoder's mass
on a bin; this bounds -log P directly, for a network of ``training.dequantise=none``. ``gaussian`` takes uniform points
of the bins and a density, as the ODE does with ``dequantisation=uniform``. ``auto`` takes the one that fits the chosen
dequantisation.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Dequantisation, Likelihood, UniformDequantisation, VariationalBound, bin_edges
from scoresde.samplers import Grid
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.parts.batches import batches
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.effort import refuse_error
from scoresde.tasks.parts.points import points_of
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.scoring import Scoring
from scoresde.tasks.parts.statistics import mean_and_stderr

from .task import Job, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bound(Task):
    """Bounds the negative log-likelihood of points by the ancestral chain; see the module's text.

    Writes bound.npz, and the terms as bound.png.

    Arguments:
        grid: how the chain's times are spaced between T and eps.
        steps: the number of the chain's steps, one less than of its times.
        bound: the reverse steps' variance, and how many terms are evaluated.
        decoder: for integers, ``discretised``, ``gaussian`` or ``auto``; see the module's text.
        likelihood: how the ODE's log p is computed; None leaves it out.
        dequantisation: which points of a bin stand for its integer in the ODE's value; ``decoder=auto`` follows it.
        count: the number of held-out points; None for 10,000 vectors or 256 images, or all where there are fewer.
        points: a file of points in data units to score instead: ``count`` of them, drawn at random, or all.
        batch: the number of points per batch; the results do not depend on it.
        seed: the seed of the noise, the probes and the dequantisation.
        device, dtype: where, and in which precision the score is evaluated.
    """

    reports_density: ClassVar[bool] = True
    refuses_guidance: ClassVar[bool] = True

    grid: Grid
    steps: int = 999
    bound: VariationalBound = field(default_factory=VariationalBound)
    decoder: Literal["auto", "gaussian", "discretised"] = "auto"
    likelihood: Likelihood | None = None
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        for key, instead in (("batch", 1024), ("steps", 999)):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; type `{key}`={instead}")
        if self.decoder not in ("auto", "gaussian", "discretised"):
            raise ValueError(f"`decoder`={self.decoder} must be auto, gaussian or discretised; type `decoder`=auto")

    def check(self, sde: SDE, data: Data) -> None:
        refuse_error(self.likelihood, self)
        self.decoder_of(data)
        points_of(data, self.points, self.count)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        r = points_of(data, self.points, self.count, quiet=True)
        started = time.monotonic()
        # the bound and its terms
        found, times = self.score(sde, score, data, r)
        seconds = time.monotonic() - started
        metrics = {"count": len(r)}
        for name in ("bound", "prior", "diffusion", "reconstruction"):
            value, stderr = mean_and_stderr(-found["log_prob"] if name == "bound" else found[name])
            metrics |= {f"{name}_nats": value, f"{name}_stderr": stderr}
            metrics |= bits_per_dim(data, name, value, stderr)
        metrics["noise_stderr_nats"] = float(found["stderr"].square().mean().sqrt()) / math.sqrt(len(r))
        if data.levels:
            metrics["decoder"] = self.decoder_of(data)
        # the comparison with the ODE and with the data's density
        ode = None
        if self.likelihood is not None:
            ode = self.ode(sde, score, data, r)
            nll, nll_stderr = mean_and_stderr(-ode["log_prob"])
            gap, gap_stderr = mean_and_stderr(ode["log_prob"] - found["log_prob"])
            metrics |= {"ode_nats": nll, "ode_stderr": nll_stderr, "ode_bits_per_dim": data.bits_per_dim(nll)}
            metrics |= {"gap_nats": gap, "gap_stderr": gap_stderr} | bits_per_dim(data, "gap", gap, gap_stderr)
        truth = data.true_log_prob(found["x"])
        if truth is not None and bool(truth.isfinite().all()):
            gap, gap_stderr = mean_and_stderr(truth - found["log_prob"])
            metrics |= {"floor_nats": -float(truth.mean()), "bound_gap_nats": gap, "bound_gap_stderr": gap_stderr}
        metrics |= {"nfe": float(found["nfe"]), "seconds": seconds}

        names = ("x", "log_prob", "prior", "diffusion", "reconstruction", "stderr", "terms")
        arrays = {key: found[key].numpy() for key in names}
        record.arrays("bound", times=times.numpy(), **arrays, **columns_of(data))
        from scoresde import figures

        record.picture(
            figures.bound_terms(
                found["terms"] / (data.dim * math.log(2)),
                times.flip(0),
                record.path("bound.png"),
                ode=data.bits_per_dim(-float(ode["log_prob"].mean())) if ode else None,
            )
        )
        return metrics

    def decoder_of(self, data: Data) -> str:
        """Returns ``gaussian`` or ``discretised``, the decoder that ``auto`` stands for or that is given.

        Raises:
            ValueError: ``discretised`` for continuous data.
        """
        if data.levels is None:
            if self.decoder == "discretised":
                raise ValueError(
                    "task.decoder=discretised is for integers, and these data are continuous; leave it out, or type "
                    "data.levels=L for a file of integers 0 ... L-1"
                )
            return "gaussian"
        fits = "gaussian" if self.dequantisation.training == "uniform" else "discretised"
        return fits if self.decoder == "auto" else self.decoder

    def score(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the bound at r (N, *) in data units, and the chain's times t_N ... t_1.

        The bound holds x (N, *), the points that were scored, in data units; log_prob, prior, diffusion, reconstruction
        and stderr (N,) in nats, of a density in data units or of integers; terms (steps + 2,), the means of L_0, L_1,
        ..., L_N over the points, NaN where the random choice of terms took none; and nfe, the evaluations a point.
        """
        discretised, dtype = self.decoder_of(data) == "discretised", getattr(torch, self.dtype)
        times, parts, sums, draws, evaluations = self.grid(sde, self.steps), [], 0.0, 0.0, 0.0
        with progress("bounding", len(r)) as advance:
            for batch in batches(len(r), self.batch, advance):
                own = r[batch.rows]
                edges, point, jacobian = None, own, data.log_det
                if discretised:  # the bins' centres; a probability needs no Jacobian
                    half = torch.full(own.shape, 0.5, dtype=torch.float64)
                    point, jacobian = data.dequantise(own.double(), half), 0.0
                    edges = tuple(edge.to(self.device) for edge in bin_edges(data, own))
                elif data.levels is not None:
                    places = batch.noise(self.seed, data.shape, torch.float64, "cpu", "dequantisation")
                    point = data.dequantise(own, places.uniform())
                found = self.bound(
                    sde,
                    score,
                    data.encode(point).to(self.device, dtype),
                    times,
                    edges,
                    batch.noise(self.seed, data.shape, dtype, self.device, "bound"),
                    on_step=batch.on_step,
                )
                sums, draws = sums + found.sums.double().cpu(), draws + found.draws.double().cpu()
                evaluations += found.nfe * batch.size
                columns = (
                    found.model_log_prob + jacobian,
                    found.prior,
                    found.diffusion,
                    found.reconstruction - jacobian,
                )
                parts.append((point, *(column.double().cpu() for column in (*columns, found.stderr))))
        names = ("x", "log_prob", "prior", "diffusion", "reconstruction", "stderr")
        result = {name: torch.cat(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
        first, last = (result[name].mean()[None] for name in ("reconstruction", "prior"))
        terms = torch.cat([first, sums / draws, last])
        return {**result, "terms": terms, "nfe": torch.tensor(evaluations / len(r))}, times

    def ode(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor) -> dict[str, Tensor]:
        """Returns log p of the same points by the ODE: the columns of :meth:`Scoring.score`."""
        scoring = Scoring(self.likelihood, self.dequantisation, self.batch, self.seed, self.device, self.dtype)
        return scoring.score(sde, score, data, r)


def bits_per_dim(data: Data, name: str, value: float, stderr: float) -> dict[str, float]:
    """Returns a value in nats of a point and its standard error as metrics in bits per dimension."""
    return {f"{name}_bits_per_dim": data.bits_per_dim(value), f"{name}_bits_per_dim_stderr": data.bits_per_dim(stderr)}
