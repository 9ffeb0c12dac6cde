"""What sets a Langevin step's size decides whether samples are right: three rules on a mixture, the score exact.

    python -m benchmarks.langevin

Predictor-corrector sampling, 20,000 samples, VE: the weights found, and the share of samples further than 6 std
from every component.
"""

import torch

from data import Mixture
from models import Oracle
from samplers import Langevin, PredictorCorrector, ReverseDiffusion, Uniform
from sde_lib import VE, BlockNoise

COUNT = 20_000


def main() -> None:
    sde = VE()
    data = Mixture(weights=[0.5, 0.3, 0.2], means=[[2.0, 2.0], [-2.0, 1.0], [0.0, -2.4]], stds=[0.5, 0.4, 0.7])
    score = Oracle(sde, data.components()).float()
    weights, means, stds = data.components()
    print("| `rule` | weights (0.5, 0.3, 0.2) | beyond 6 std |\n|---|---|---|")
    for rule in ("kernel", "batch_norms", "sample_norms"):
        sampler = PredictorCorrector(Uniform(), 500, ReverseDiffusion(), Langevin(rule=rule))
        noise = BlockNoise(0, 0, COUNT, (2,), torch.float32)
        x = sampler(sde, score, noise() * sde.prior_std, noise).double()
        distance = (x[:, None] - means).norm(dim=-1) / stds
        found = torch.bincount((distance.square() / 2 + 2 * stds.log()).argmin(1), minlength=3) / COUNT
        share = float((distance.amin(1) > 6).double().mean())
        print(f"| {rule} | {', '.join(f'{w:.3f}' for w in found.tolist())} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    main()
