"""Three rules for the size of a Langevin step, on a mixture with the exact score.

    python -m benchmarks.langevin

Predictor-corrector sampling of 20,000 samples under VE: the weights of the components, and the share of samples further
than 6 std from every component.
"""

import argparse

import torch

from scoresde.data import Mixture
from scoresde.models import Oracle
from scoresde.samplers import Langevin, PredictorCorrector, ReverseDiffusion, Uniform
from scoresde.sde_lib import VE, BlockNoise


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(argv)
    sde = VE()
    data = Mixture(weights=[0.5, 0.3, 0.2], means=[[2.0, 2.0], [-2.0, 1.0], [0.0, -2.4]], stds=[0.5, 0.4, 0.7])
    score = Oracle(sde, data.components()).float()
    weights, means, stds = data.components()
    print("| `rule` | weights (0.5, 0.3, 0.2) | beyond 6 std |\n|---|---|---|")
    for rule in ("kernel", "batch_norms", "sample_norms"):
        sampler = PredictorCorrector(Uniform(), options.steps, ReverseDiffusion(), Langevin(rule=rule))
        noise = BlockNoise(0, 0, options.count, (2,), torch.float32)
        x = sampler(sde, score, noise() * sde.prior_std, noise).double()
        distance = (x[:, None] - means).norm(dim=-1) / stds
        found = torch.bincount((distance.square() / 2 + 2 * stds.log()).argmin(1), minlength=3) / options.count
        share = float((distance.amin(1) > 6).double().mean())
        print(f"| {rule} | {', '.join(f'{w:.3f}' for w in found.tolist())} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    main()
