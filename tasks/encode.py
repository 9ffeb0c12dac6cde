"""Carry data to their latent codes and back, by the probability flow (arXiv 2011.13456, eq. 13).

A point x starts as alpha(eps) x, the middle of its law at eps, and is carried to z at T and back; nothing is random on
the way, so that what does not come back is the solver's error. Over the data the codes of an exact score have the law
p_T, nearly N(0, sigma(T)^2 I): how far all coordinates of z / sigma(T) together are from N(0, 1) is measured by the
Kolmogorov-Smirnov distance, the largest difference of the two distribution functions. n normal numbers would show
sqrt(pi/2) log(2) / sqrt(n) of it in the mean, its floor.
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from data import Data
from sde_lib import SDE, BlockNoise, Counted, ScoreFn, frame, integrate
from sde_lib.frame import Flow, check_clock
from sde_lib.ode import check_solver

from .points import points_of
from .progress import progress
from .record import Record


@dataclass(frozen=True)
class Encode:
    """(sde, score, data, record) -> metrics, codes.npz and a picture.

    Arguments:
        method: ``tsit5`` or ``dopri5`` (a step size for each point) or ``torchdiffeq.NAME``; see :mod:`sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``; see :mod:`sde_lib.frame`.
        rtol, atol: tolerances of the local error, of each point by itself.
        steps: the number of steps of a torchdiffeq method without error control.
        count: how many held-out points; None for 10,000 vectors or 256 pictures, or all where there are fewer.
        points: a file of points in the data's own units to encode instead, all of them.
        batch: how many at a time; the codes do not depend on it.
        seed: of the dequantisation.
        device, dtype: where, and in which precision.
    """

    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f"task.batch={self.batch} must be at least 1")
        try:
            check_clock(self.clock)
            check_solver(self.method, self.rtol, self.atol, self.steps)
        except ValueError as error:
            raise ValueError(f"task.{error}") from None

    def __call__(self, sde: SDE, score: ScoreFn, data: Data, record: Record) -> dict:
        r, counted = points_of(data, self.points, self.count), Counted(score)
        started = time.monotonic()
        x, z, back = self.round_trip(sde, counted, data, r)
        seconds = time.monotonic() - started
        record.arrays("codes", x=x.numpy(), z=z.numpy(), x_back=back.numpy())
        self.show(data, x, z / sde.prior_std, back, record)

        error = (back - x).abs()
        in_model_units = error / data.scale
        return {
            "count": len(x),
            "round_trip_rms_data_units": float(error.square().mean().sqrt()),
            "round_trip_worst_data_units": float(error.max()),
            "round_trip_rms_model_units": float(in_model_units.square().mean().sqrt()),
            "round_trip_worst_model_units": float(in_model_units.max()),
            **normality(z.double() / sde.prior_std),
            "nfe": counted.evaluations / len(x),
            "seconds": seconds,
        }

    def round_trip(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, *) in data units as it was encoded, z (N, *) in model units, and what came back in data units."""
        parts, dtype = [], getattr(torch, self.dtype)
        alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))
        with progress("encoding", len(r)) as advance:
            for first in range(0, len(r), self.batch):
                raw = r[first : first + self.batch]
                size = len(raw)
                # the numbers of task=likelihood: the same seed dequantises to the same points
                noise = BlockNoise(self.seed, first, size, data.shape, torch.float64, "cpu", stream="dequantisation")
                raw = data.dequantise(raw.double() if data.levels is None else raw, noise.uniform())
                x = alpha * data.encode(raw).to(self.device, dtype)
                z = self.carry(sde, score, x, True, lambda s, first=first, size=size: advance(first, size, s / 2))
                back = self.carry(
                    sde, score, z, False, lambda s, first=first, size=size: advance(first, size, (1 + s) / 2)
                )
                parts.append((raw, z.cpu(), data.decode(back.double().cpu() / alpha)))
        x, z, back = (torch.cat(column) for column in zip(*parts, strict=True))
        return x, z, back

    @torch.no_grad()
    def carry(self, sde: SDE, score: ScoreFn, x: Tensor, to_noise: bool, on_step=None) -> Tensor:
        """x (B, *) at eps to z at T, or z to x, in model units."""
        problem = frame(sde, score, self.clock)
        ends = (problem.sde.eps, problem.sde.T), (problem.scale(sde.eps), problem.scale(sde.T))
        (start, end), (scale, scale_at_end) = ends if to_noise else (pair[::-1] for pair in ends)
        y = integrate(
            Flow(problem.sde, problem.score, x.shape[1:], x.dtype),
            x.flatten(1) / scale,
            start,
            end,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            steps=self.steps,
            on_step=on_step,
        )
        return y.reshape(x.shape) * scale_at_end

    def show(self, data: Data, x: Tensor, z: Tensor, back: Tensor, record: Record) -> None:
        from .figures import codes

        path = record.path("codes.png")
        if len(data.shape) == 3:
            record.picture(codes.image_codes(x, z, back, path, levels=data.levels))
        elif data.dim == 2:
            record.picture(codes.planar_codes(x, z, path, labels=data.labels()))
        else:
            record.picture(codes.code_histogram(z, path))


def normality(z: Tensor) -> dict[str, float]:
    """Mean, std and Kolmogorov-Smirnov distance to N(0, 1) of all numbers in z, and the distance's floor."""
    ordered = z.flatten().sort().values
    n = len(ordered)
    below, steps = torch.special.ndtr(ordered), torch.arange(n + 1, dtype=z.dtype) / n
    return {
        "code_mean": float(ordered.mean()),
        "code_std": float(ordered.std(correction=0)),
        "code_ks": float(torch.maximum(steps[1:] - below, below - steps[:-1]).max()),
        "code_ks_floor": math.sqrt(math.pi / 2) * math.log(2) / math.sqrt(n),
    }
