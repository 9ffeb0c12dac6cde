"""Trains a classifier of noisy data, or loads it, and shows its accuracy along the noise."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, BlockNoise
from scoresde.tasks.task import Job, Task


@dataclass(frozen=True)
class TrainClassifier(Task):
    """Reports a classifier's accuracy and cross-entropy on held-out data along the noise.

    Writes classifier.npz, classifier.png and, for a network with a training, loss.png. ``label_accuracy`` and
    ``cross_entropy_nats`` are those at eps, ``cross_entropy_noise_nats`` is that at T. On pure noise the best
    prediction is the classes' shares: ``cross_entropy_of_shares_nats`` is the entropy of the shares in the training
    part, about the cross-entropy of a well calibrated classifier at T.

    Arguments:
        count: the number of held-out examples; None for 2,000, or all where there are fewer.
        levels: the number of noise levels, evenly spaced in log(sigma/alpha).
        seed: the seed of the noise.
        device, dtype: where, and in which precision.
    """

    count: int | None = None
    levels: int = 24
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    conditions: ClassVar[str] = "each"
    requests: ClassVar[tuple[str, ...]] = ("classifier",)

    def __post_init__(self):
        if not 2 <= self.levels <= 1000:
            raise ValueError(f"`levels`={self.levels} must lie in [2, 1000]; type `levels`=24")

    def check(self, sde: SDE, data: Data) -> None:
        if data.condition is not None and data.condition.asked is not None:
            raise ValueError("condition= names one label, and a classifier is trained on all; leave condition out")

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        network = job.networks.classifier()
        classifier = network.model
        from scoresde import figures

        condition, count = data.condition, self.count or 2000
        y = condition.test[:count]
        x = data.encode(data.dequantise(data.test[:count], None).double())
        ends = sde.half_log_snr(torch.tensor([sde.eps, sde.T], dtype=torch.float64))
        times = sde.time(torch.linspace(*ends.tolist(), self.levels, dtype=torch.float64)).clamp(sde.eps, sde.T)
        noise = BlockNoise(self.seed, 0, len(x), data.shape, torch.float64, "cpu", stream="classifier")
        right, cost = zip(*(self.at(classifier, sde, x, y, float(t), noise()) for t in times), strict=True)
        shares = torch.bincount(condition.train, minlength=len(condition.names)).double() / len(condition.train)
        entropy = -float((shares * shares.clamp_min(1e-300).log()).sum())
        ratio = (sde.sigma(times) / sde.alpha(times)).tolist()
        path = record.path("classifier.png")
        record.picture(figures.classifier_curve(ratio, right, cost, float(shares.max()), entropy, path))
        if network.training:
            record.picture(figures.loss_curve(network.training, record.path("loss.png")))
        record.arrays(
            "classifier",
            t=times.numpy(),
            accuracy=torch.tensor(right).numpy(),
            cross_entropy_nats=torch.tensor(cost).numpy(),
        )
        return {
            "label_accuracy": right[0],
            "label_accuracy_stderr": math.sqrt(right[0] * (1 - right[0]) / len(x)),
            "cross_entropy_nats": cost[0],
            "cross_entropy_noise_nats": cost[-1],
            "cross_entropy_of_shares_nats": entropy,
            "count": len(x),
            "parameters": sum(p.numel() for p in classifier.parameters()),
        }

    @torch.no_grad()
    def at(
        self, classifier: torch.nn.Module, sde: SDE, x: Tensor, y: Tensor, t: float, z: Tensor
    ) -> tuple[float, float]:
        """Returns the accuracy, and the mean of -log p(y | x_t, t) in nats, on examples x (N, *) in model units of the
        classes y (N,), perturbed by normals z (N, *) to the time t.
        """
        times = torch.full((len(x),), t, dtype=torch.float64)
        x_t = sde.perturb(x, times, z).to(self.device, getattr(torch, self.dtype))
        parts = zip(x_t.split(512), times.to(x_t).split(512), strict=True)
        log_prob = torch.cat([classifier(x_part, t_part) for x_part, t_part in parts]).double().cpu()
        return float((log_prob.argmax(1) == y).double().mean()), -float(log_prob.gather(1, y[:, None]).mean())
