r"""Interpolates between data through their latent codes: encode, interpolate, decode (arXiv 2011.13456, section 4.3).

Codes are nearly normal, so in D dimensions they lie near the sphere of radius sigma(T) sqrt(D), and the codes between
them should too. With r_0, r_1 the lengths of the codes z_0 and z_1, omega the angle between them, and u from 0 to 1,

.. math::
    \text{spherical} &: \bigl((1 - u)\,r_0 + u\,r_1\bigr)
        \Bigl[\frac{\sin((1 - u)\,\omega)}{\sin\omega}\,\frac{z_0}{r_0}
        + \frac{\sin(u\,\omega)}{\sin\omega}\,\frac{z_1}{r_1}\Bigr], \\
    \text{normal} &: \cos(\tfrac{\pi}{2} u)\,z_0 + \sin(\tfrac{\pi}{2} u)\,z_1, \\
    \text{linear} &: (1 - u)\,z_0 + u\,z_1 .

The spherical path follows the great circle between the directions. (White 2016, arXiv 1609.04468, applies the bracket
to the codes themselves. That is the same for equal lengths; for unequal lengths its values become large where the angle
is near pi, as it often is in the plane.) The bracket's coefficients are computed as u sinc(u omega)/sinc(omega), which
has no 0/0 at small angles. Between opposite codes the great circle is not unique, and in one dimension there is none.
The normal path is the limit of the spherical one in many dimensions, where independent codes are orthogonal: if the
ends are independent, every z on it has their distribution, N(0, sigma(T)^2 I), in any number of dimensions. The linear
path between orthogonal codes passes nearer to 0, at 0.71 of the radius half way, where no code of data lies.

``temperature`` multiplies all codes before they are decoded; for a Gaussian it multiplies the standard deviation of the
data. Below 1 images are smoother and more typical, and the ends are no longer the data.
"""

import math
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, Counted
from scoresde.sde_lib.ode import SOLVER_KEYS
from scoresde.tasks.parts.codec import Codec, continuous
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.points import points_of
from scoresde.tasks.parts.record import Record

from .task import Job, Task

OPPOSITE = 1e-5  # radians: with an angle so near to pi rounding decides the great circle


@dataclass(frozen=True)
class Interpolate(Task):
    """Interpolates between data through their latent codes; see the module's text.

    Writes interpolation.npz and interpolation.png.

    Arguments:
        method, clock, rtol, atol, steps: the solver; see :class:`scoresde.tasks.parts.codec.Codec`.
        path: ``spherical``, ``normal`` or ``linear``; see the module's text.
        through: the number of data points on a path, ends included.
        frames: the number of points from one data point to the next, both included.
        temperature: the factor of the codes; with 1 the ends are the data.
        count: the number of paths; None for 8 of images and 32 of vectors, or fewer if there are fewer held-out data;
            with ``points`` None for all paths of the file.
        points: a file of points in data units, in the order in which the paths go through them; None for held-out data.
        batch: the number of points per batch; the paths do not depend on it.
        seed: the seed of the dequantisation.
        device, dtype: where, and in which precision.
    """

    only_with: ClassVar[dict] = SOLVER_KEYS

    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    path: Literal["spherical", "normal", "linear"] = "spherical"
    through: int = 2
    frames: int = 11
    temperature: float = 1.0
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        for key, instead in (("through", 2), ("frames", 11)):
            if getattr(self, key) < 2:
                raise ValueError(
                    f"`{key}`={getattr(self, key)} must be at least 2, the ends of a path; type `{key}`={instead}"
                )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature`={self.temperature} must be positive; type `temperature`=1")
        if self.path not in PATHS:
            raise ValueError(f"`path`={self.path} must be one of {', '.join(PATHS)}; type `path`=spherical")
        self.codec  # noqa: B018 (its own checks)

    @property
    def codec(self) -> Codec:
        """The map between data and codes with this task's settings."""
        return Codec(self.method, self.clock, self.rtol, self.atol, self.steps, self.batch, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        if self.path == "spherical" and data.dim == 1:
            raise ValueError("task.path=spherical needs two dimensions, and these data have one; type task.path=normal")
        self.ends(data)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        r, counted = self.ends(data, quiet=True), Counted(job.networks.score().model)
        started = time.monotonic()
        x = continuous(data, r, self.seed)
        codes = self.codec.encode(sde, counted, data, x)
        z, u = self.paths(codes.reshape(-1, self.through, *data.shape).double())
        z = (self.temperature * z).to(codes.dtype)
        rows, frames = z.shape[:2]
        decoded = self.codec.decode(sde, counted, data, z.flatten(0, 1)).reshape(rows, frames, *data.shape)
        seconds = time.monotonic() - started
        ends = x.reshape(rows, self.through, *data.shape)
        arrays = {"x": decoded, "z": z, "ends": ends, "u": u}
        record.arrays("interpolation", **{key: v.numpy() for key, v in arrays.items()}, **columns_of(data))
        self.show(data, decoded, ends, z.double() / sde.prior_std, u, record)

        # the rms of each code's coordinates in the prior's stds; the ends are frames 0, frames - 1, 2 (frames - 1), ...
        radius = z.double().flatten(2).square().mean(2).sqrt() / sde.prior_std
        metrics = {"count": rows, "frames": frames}
        if self.temperature == 1:
            error = (decoded[:, :: self.frames - 1] - ends).abs()
            metrics |= {
                "end_error_rms_data_units": float(error.square().mean().sqrt()),
                "end_error_worst_data_units": float(error.max()),
                "end_error_worst_stds": float((error / data.scale).max()) / data.std,
            }
        metrics["code_radius_ends"] = float(radius[:, :: self.frames - 1].mean())
        if between := [k for k in range(frames) if k % (self.frames - 1)]:
            metrics["code_radius_between"] = float(radius[:, between].mean())
            truth = data.true_log_prob(decoded[:, between].flatten(0, 1))
            if truth is not None and bool(truth.isfinite().all()):
                metrics |= {"ends_nll_nats": -float(data.true_log_prob(x).mean())}
                metrics |= {"between_nll_nats": -float(truth.mean())}
        return {**metrics, "nfe": counted.evaluations / (len(x) + rows * frames), "seconds": seconds}

    def ends(self, data: Data, quiet: bool = False) -> Tensor:
        """Returns the data points that the paths go through, (paths * through, *) in data units, path after path.

        Raises:
            FileNotFoundError: there is no file ``points``.
            ValueError: there are too few points, or those of the file are no multiple of ``through`` or unreadable.
        """
        if self.points is None:
            count = self.count or (8 if len(data.shape) == 3 else 32)
            r = data.test[: count * self.through]
            rows = len(r) // self.through
            if rows == 0 or self.count and rows < self.count:
                raise ValueError(
                    f"{count} paths through task.through={self.through} points need {count * self.through} held-out "
                    f"data, and there are {len(data.test)}; type a smaller count="
                )
            return r[: rows * self.through]
        r = points_of(data, self.points, None, quiet)
        if len(r) % self.through:
            raise ValueError(
                f"points={self.points} holds {len(r)} points, which is no multiple of task.through={self.through}, the "
                f"points of a path; type task.through={len(r)} for one path through all of them"
            )
        wanted = (self.count or len(r)) * self.through
        if self.count and wanted > len(r):
            raise ValueError(
                f"count={self.count} paths through task.through={self.through} points need {wanted} points, and "
                f"points={self.points} holds {len(r)}; leave count out for all"
            )
        return r[:wanted]

    def paths(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Maps codes (N, through, *) to the codes on the paths, (N, F, *) with F = (through - 1) (frames - 1) + 1;
        returns them and their places along a path, (F,) from 0 to through - 1.
        """
        u = torch.linspace(0, 1, self.frames, dtype=codes.dtype)
        legs = [PATHS[self.path](codes[:, k], codes[:, k + 1], u) for k in range(self.through - 1)]
        whole = torch.cat([legs[0], *(leg[:, 1:] for leg in legs[1:])], 1)
        return whole, torch.cat([u, *(u[1:] + k for k in range(1, self.through - 1))])

    def show(self, data: Data, x: Tensor, ends: Tensor, z: Tensor, u: Tensor, record: Record) -> None:
        """Draws the paths.

        Arguments:
            x: the points on the paths, (N, F, *) in data units.
            ends: the data that the paths go through, (N, through, *) in data units.
            z: the codes of x, in units of the prior's standard deviation.
            u: the places along a path, (F,).
        """
        from scoresde.figures import interpolation as draw

        path, real = record.path("interpolation.png"), data.test[:5000]
        if len(data.shape) == 3:
            record.picture(draw.strips(x, ends, path, levels=data.levels))
        elif data.dim == 2:
            record.picture(draw.planar_paths(x, z, real, path, stops=self.frames - 1, labels=data.labels()))
        else:
            record.picture(draw.coordinate_paths(x, ends, u, real, path, labels=data.labels()))


def spherical(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Returns the points along the great circle from a to b (N, *) at u (F,) in [0, 1], (N, F, *); their length changes
    linearly from that of a to that of b.

    Raises:
        ValueError: an a and its b are opposite.
    """
    # in float64, since near pi the weights are large
    first, second = a.flatten(1).double(), b.flatten(1).double()
    r, s = (v.norm(dim=1, keepdim=True).clamp_min(1e-300) for v in (first, second))
    # the half angle by its tangent, which is accurate near 0 and near pi, where a cosine is not
    omega = 2 * torch.atan2((first / r - second / s).norm(dim=1), (first / r + second / s).norm(dim=1))[:, None]
    if bool((omega > math.pi - OPPOSITE).any()):
        row = int((omega > math.pi - OPPOSITE)[:, 0].nonzero()[0])
        raise ValueError(f"the ends of path {row} have opposite codes, and no great circle; type task.path=normal")
    whole, radius = torch.sinc(omega / math.pi), (1 - u) * r + u * s
    weights = (v * torch.sinc(v * omega / math.pi) / whole * radius / length for v, length in ((1 - u, r), (u, s)))
    return combine(a, b, *(weight.to(a.dtype) for weight in weights))


def normal(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Returns the points on the path from a to b that keeps the distribution of independent normal ends; the shapes are
    those of :func:`spherical`.
    """
    return combine(a, b, torch.cos(u * math.pi / 2)[None], torch.sin(u * math.pi / 2)[None])


def linear(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Returns the points on the chord from a to b; the shapes are those of :func:`spherical`."""
    return combine(a, b, (1 - u)[None], u[None])


def combine(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Returns first a + second b, (N, F, *), of a, b (N, *) and weights (N, F) or (1, F); its ends are exactly a, b."""
    dims = [1] * (a.ndim - 1)
    path = first.reshape(*first.shape, *dims) * a[:, None] + second.reshape(*second.shape, *dims) * b[:, None]
    path[:, 0], path[:, -1] = a, b
    return path


PATHS = {"spherical": spherical, "normal": normal, "linear": linear}
