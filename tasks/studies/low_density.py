"""The error of a score in regions without data, with and without noise.

A network learns the score where the data are. Elsewhere its output is arbitrary, and misleads a Langevin walk that
starts there. Data that are perturbed by much noise are everywhere, and so the score is learnt everywhere (Song and
Ermon, arXiv 1907.05600, section 3.2.1 and figure 2). Each network's error is measured against the exact score of its
own level, on an even grid over a rectangle around the data, beside that level's density, and at held-out data with that
level's noise.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.models import Oracle
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.task import Job, Task
from scoresde.training import Trainer

from .trainers import check_trainers

POINTS = 81  # along each side of the grid
BINS = 12  # of density, with equal numbers of grid points, up to one


@dataclass(frozen=True)
class LowDensity(Task):
    """Measures the error of scores at the data and on a grid around them; see the module's text.

    Writes low_density.npz and low_density.png.

    Arguments:
        trainers: the trainers of the networks to compare, by name, each with the levels ``one`` or ``clean``; a network
            of ``clean`` is evaluated at eps.
        device, dtype: where, and in which precision.
    """

    conditions: ClassVar[str] = "none"
    requests: ClassVar[tuple[str, ...]] = ("rivals",)

    trainers: dict[str, Trainer]
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_trainers(self.trainers, ())

    def check(self, sde: SDE, data: Data) -> None:
        if data.components() is None or data.shape != (2,):
            raise ValueError("task=low_density needs a mixture in the plane, whose score is known; type data=mixture")

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        oracle = Oracle(sde, data.components()).double()
        x = data.encode(data.test.double())
        low, high = x.quantile(0.001, dim=0) - 1.0, x.quantile(0.999, dim=0) + 1.0
        axes = [torch.linspace(float(a), float(b), POINTS, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).reshape(-1, 2)
        metrics, panels, arrays = {}, {}, {}
        for name, network in job.networks.rivals().items():
            t = self.trainers[name].loss.levels.times(sde, torch.full((1,), 0.5, dtype=torch.float64))
            error, density = self.compare(network.model, oracle, sde, points, t)
            at_data, _ = self.compare(network.model, oracle, sde, self.perturbed(sde, x, t), t)
            order = density.argsort(descending=True)  # the mean error in bins of falling density
            bins = torch.stack([part.mean() for part in error[order].tensor_split(BINS)])
            panels[name] = (
                error.reshape(POINTS, POINTS).numpy(),
                density.reshape(POINTS, POINTS).numpy(),
                bins.numpy(),
            )
            arrays[name] = error.reshape(POINTS, POINTS).numpy()
            metrics[f"{name}_error_at_the_data"] = float(at_data.mean())
            metrics[f"{name}_error_in_the_plane"] = float(error.mean())
        record.arrays("low_density", x=axes[0].numpy(), y=axes[1].numpy(), **arrays)
        from scoresde.figures.failures import low_density

        record.picture(low_density(axes[0].numpy(), axes[1].numpy(), panels, record.path("low_density.png")))
        return metrics

    def perturbed(self, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
        """Returns data x (N, 2) in model units with the noise of the time t (1,), in the units of x/alpha; each call
        draws the same noise.
        """
        z = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        return x + float(torch.exp(-sde.half_log_snr(t))) * z

    @torch.no_grad()
    def compare(self, network: ScoreFn, oracle: Oracle, sde: SDE, points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the error |s - s*| / (|s| + |s*|) of the network's score s against the exact one s*, and the exact
        log-density, both (N,), at points (N, 2) in the units of x/alpha and at the time t (1,).

        The error is 0 for s = s*, and 1 for an s of the opposite direction or of length 0.
        """
        dtype, times = getattr(torch, self.dtype), t.expand(len(points))
        x = float(sde.alpha(t)) * points
        exact = oracle(x, times)
        found = network(x.to(self.device, dtype), times.to(self.device, dtype)).double().cpu()
        error = (found - exact).norm(dim=1) / (found.norm(dim=1) + exact.norm(dim=1)).clamp_min(1e-30)
        return error, oracle.log_prob(x, times)
