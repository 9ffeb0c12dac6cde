r"""Carries data to their latent codes and back, by the probability flow (:mod:`scoresde.tasks.parts.codec`).

Over the data the codes of an exact score have nearly the distribution p_T, and that is nearly N(0, sigma(T)^2 I). The
Kolmogorov-Smirnov distance, the largest difference of two distribution functions, measures how far all coordinates of
z / sigma(T) together are from N(0, 1). The floor is the mean of this distance for n independent normal numbers,
sqrt(pi/2) log(2) / sqrt(n) for large n.

**Identity.** The flow depends on the data and the SDE only. Two networks that were trained separately, with different
seeds, architectures or losses, should therefore give a point the same code (arXiv 2011.13456, section 4.3). ``other``
names a second network. Its codes of the same points are compared in units of the prior's standard deviation, coordinate
by coordinate,

.. math:: \rho_j = \mathrm{corr}_i(z^a_{ij}, z^b_{ij}), \qquad
    d = \frac{\mathrm{rms}\,(z^a_i - z^b_i)}{\mathrm{rms}\,(z^a_i - z^b_{\pi(i)})},

where pi rotates the points by half their number. ``other_correlation`` is the mean of rho_j over the coordinates that
vary, and ``other_distance_share`` is d: 0 for identical codes and about 1 for unrelated ones. A network under another
SDE can be compared too. Its flow is the same curve to another end (:mod:`scoresde.sde_lib.frame`): at T the share
alpha(T)/sigma(T) of a point is left, and exact codes differ by about as much.
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


@dataclass(frozen=True)
class Encode(Task):
    """Carries data to latent codes and back by the probability flow, and reports the error of the round trip.

    Writes codes.npz and codes.png, and identity.png where a second network is compared.

    Arguments:
        method, clock, rtol, atol, steps: the solver; see :class:`scoresde.tasks.parts.codec.Codec`.
        other: the folder of a second network of the same data, under its own SDE; None for none.
        count: the number of held-out points; None for 10,000 vectors or 256 images, or all where there are fewer.
        points: a file of points in data units to encode instead: ``count`` of them, drawn at random, or all.
        batch: the number of points per batch; the codes do not depend on it.
        seed: the seed of the dequantisation.
        device, dtype: where, and in which precision.
    """

    refuses_guidance: ClassVar[bool] = True

    @property
    def conditions(self) -> Literal["one", "none"]:
        return "one" if self.other is None else "none"  # networks.other() returns a score without a y

    @property
    def requests(self) -> tuple[str, ...]:
        return ("score",) if self.other is None else ("score", "other")

    only_with: ClassVar[dict] = SOLVER_KEYS

    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    other: str | None = None
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        self.codec  # noqa: B018 (its own checks)

    @property
    def codec(self) -> Codec:
        """The map between data and codes with this task's settings."""
        return Codec(self.method, self.clock, self.rtol, self.atol, self.steps, self.batch, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        points_of(data, self.points, self.count)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        other = None if self.other is None else job.networks.other(self.other)  # its errors come before a long training
        r, counted = points_of(data, self.points, self.count, quiet=True), Counted(job.networks.score().model)
        started = time.monotonic()
        x = continuous(data, r, self.seed)
        z = self.codec.encode(sde, counted, data, x)
        back = self.codec.decode(sde, counted, data, z)
        seconds = time.monotonic() - started
        arrays, other_code = {"x": x.numpy(), "z": z.numpy(), "x_back": back.numpy()}, None
        if other is not None:
            other_sde, other_score = other
            z_other = self.codec.encode(other_sde, other_score, data, x, what="encoding by the other")
            arrays["z_other"] = z_other.numpy()
            other_code = z_other.double() / other_sde.prior_std
        record.arrays("codes", **arrays, **columns_of(data))
        code = z.double() / sde.prior_std
        self.show(data, x, code, back, record)
        if other_code is not None:
            self.show_both(data, x, code, other_code, record)

        error = (back - x).abs()
        in_model_units = error / data.scale
        return {
            "count": len(x),
            "round_trip_rms_data_units": float(error.square().mean().sqrt()),
            "round_trip_worst_data_units": float(error.max()),
            "round_trip_rms_model_units": float(in_model_units.square().mean().sqrt()),
            "round_trip_worst_model_units": float(in_model_units.max()),
            "round_trip_rms_stds": float(in_model_units.square().mean().sqrt()) / data.std,
            "round_trip_worst_stds": float(in_model_units.max()) / data.std,
            **normality(code),
            **({} if other_code is None else identity(code, other_code)),
            "nfe": counted.evaluations / len(x),
            "seconds": seconds,
        }

    def show(self, data: Data, x: Tensor, z: Tensor, back: Tensor, record: Record) -> None:
        """Draws the codes, for images beside the images and what they come back as.

        Arguments:
            x, back: the points before and after the round trip, (N, *) in data units.
            z: their codes, (N, *) in units of the prior's standard deviation.
        """
        from scoresde.figures import codes

        path = record.path("codes.png")
        if len(data.shape) == 3:
            record.picture(codes.image_codes(x, z, back, path, levels=data.levels))
        elif data.dim == 2:
            record.picture(codes.planar_codes(x, z, path, labels=data.labels()))
        else:
            record.picture(codes.code_histogram(z, path))

    def show_both(self, data: Data, x: Tensor, code: Tensor, other: Tensor, record: Record) -> None:
        """Draws the codes of two networks against each other."""
        from scoresde.figures import codes

        images = x if len(data.shape) == 3 else None
        path = record.path("identity.png")
        record.picture(codes.code_identity(code, other, path, pictures=images, levels=data.levels))


def identity(code: Tensor, other: Tensor) -> dict[str, float]:
    """Returns how well the codes (N, *) of two networks agree; see the module's text. Measures that need two points are
    left out for one.

    Arguments:
        code, other: in units of the networks' priors' standard deviations.
    """
    a, b = code.flatten(1), other.flatten(1)
    apart = float((a - b).square().mean().sqrt())
    found = {"other_distance": apart}
    if len(a) < 2:
        return found
    unrelated = float((a - b.roll(len(b) // 2, 0)).square().mean().sqrt())
    a, b = a - a.mean(0), b - b.mean(0)
    size = a.norm(dim=0) * b.norm(dim=0)
    correlation = ((a * b).sum(0) / size)[size > 0]
    found |= {"other_distance_unrelated": unrelated, "other_distance_share": apart / unrelated}
    if len(correlation):
        found |= {"other_correlation": float(correlation.mean()), "other_correlation_worst": float(correlation.min())}
    return found


def normality(z: Tensor) -> dict[str, float]:
    """Returns the mean, the std and the Kolmogorov-Smirnov distance to N(0, 1) of all numbers in codes, and the floor
    of that distance.

    Arguments:
        z: the codes (N, *), in units of the prior's standard deviation.
    """
    ordered = z.flatten().sort().values
    n = len(ordered)
    below, steps = torch.special.ndtr(ordered), torch.arange(n + 1, dtype=z.dtype) / n
    return {
        "code_mean": float(ordered.mean()),
        "code_std": float(ordered.std(correction=0)),
        "code_ks": float(torch.maximum(steps[1:] - below, below - steps[:-1]).max()),
        "code_ks_floor": math.sqrt(math.pi / 2) * math.log(2) / math.sqrt(n),
    }
