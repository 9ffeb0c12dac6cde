r"""Scores off a manifold: without noise they grow throughout the training, with noise they converge.

Data on a line have no density in the plane. All of them have n = 0, with n the coordinate across the line. Implicit and
sliced score matching then reward a score -c n across the line for an ever larger c: its square is 0 at all data, and
its divergence -c lowers the loss without bound. If the data are blurred by noise of std k, the score across the line is
-n/k^2, and the same loss finds it (Song and Ermon, arXiv 1907.05600, section 3.1 and figure 1).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.task import Job, Task
from scoresde.training import Trainer
from scoresde.training.levels import One

from .trainers import check_trainers


@dataclass(frozen=True)
class Manifold(Task):
    """Measures scores across a line that holds all data; see the module's text.

    Writes manifold.npz and manifold.png.

    Arguments:
        trainers: the trainers of the networks to compare, by name, ``without_noise`` and ``with_noise`` among them. A
            network with the level ``one`` is evaluated at that level and compared with its exact score, one with the
            level ``clean`` is evaluated at eps.
        distance: the distance from the line, in model units, at which the metrics compare the scores; between 0 and 10.
        device, dtype: where, and in which precision.
    """

    conditions: ClassVar[str] = "none"
    requests: ClassVar[tuple[str, ...]] = ("rivals",)

    trainers: dict[str, Trainer]
    distance: float = 0.1
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_trainers(self.trainers, ("without_noise", "with_noise"))
        if not 0 < self.distance < 10:
            raise ValueError(f"`distance`={self.distance} must lie between 0 and 10; type `distance`=0.1")

    def check(self, sde: SDE, data: Data) -> None:
        if getattr(data, "direction", None) is None:
            raise ValueError("task=manifold looks across a line in the plane; type data=line")

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        direction = data.direction
        normal = torch.tensor([-direction[1], direction[0]], dtype=torch.float64)
        across = torch.linspace(-5, 5, 201, dtype=torch.float64) * self.distance
        metrics, curves, losses, arrays = {}, {}, {}, {"across": across.numpy()}
        for name, network in job.networks.rivals().items():
            levels = self.trainers[name].loss.levels
            t = levels.times(sde, torch.full((1,), 0.5, dtype=torch.float64)).expand(len(across))
            found = self.component(network.model, sde, across, normal, t)
            losses[name] = [(event["step"], event["loss"]) for event in network.training if "loss" in event]
            at = int((across - self.distance).abs().argmin())  # the place of the distance
            k = levels.noise_to_signal if isinstance(levels, One) else None
            curves[name] = (found.numpy(), None if k is None else (-across / k**2).numpy())
            arrays[name] = found.numpy()
            metrics[f"{name}_final_loss"] = losses[name][-1][1]
            metrics[f"{name}_score_off_the_line"] = float(found[at].abs())
            if k is not None:
                metrics[f"{name}_exact_score_off_the_line"] = self.distance / k**2
        record.arrays("manifold", **arrays)
        from scoresde.figures.failures import manifold

        record.picture(manifold(losses, across.numpy(), curves, record.path("manifold.png")))
        return metrics

    @torch.no_grad()
    def component(self, network: ScoreFn, sde: SDE, across: Tensor, normal: Tensor, t: Tensor) -> Tensor:
        """Returns the score's component across the line in the units of x/alpha, (N,), at the distances ``across`` (N,)
        from the line's middle along ``normal`` (2,), and at the times t (N,).
        """
        dtype, alpha = getattr(torch, self.dtype), sde.alpha(t)
        x = (alpha * across)[:, None] * normal
        found = network(x.to(self.device, dtype), t.to(self.device, dtype)).double().cpu()
        return alpha * (found @ normal)
