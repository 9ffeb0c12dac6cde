"""The effect of a temperature on a mixture: the weights and the widths of its modes, with the exact score.

    python -m benchmarks.temperature

Temperature 0.6 on three modes of different weights and widths, with 10,000 samples under VE; a sample belongs to the
mode with the nearest mean. p^{1/tau^2} multiplies each width by tau and each weight by w^{1/tau^2 - 1}
s^{d (1 - 1/tau^2)}, up to a common factor, as long as the modes do not overlap.
"""

import argparse

import torch

from scoresde.data import Mixture
from scoresde.models import Oracle
from scoresde.samplers import SEA, Karras, PredictorCorrector, ProbabilityFlow, TemperedNoise, TemperedScore
from scoresde.sde_lib import VE
from scoresde.tasks import Sample

TAU = 0.6


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=200, help="of the stochastic solver")
    options = parser.parse_args(argv)
    sde = VE()
    data = Mixture(weights=[0.5, 0.3, 0.2], means=[[-4.0, -2.0], [4.0, -1.0], [1.0, 5.0]], stds=[0.6, 0.4, 0.8])
    weights, means, stds = data.components()
    score, beta = Oracle(sde, data.components()).double(), 1 / TAU**2
    tempered = weights**beta * stds ** (2 * (1 - beta))
    print("| samples | weights | widths over the data's |\n|---|---|---|")
    print(line("p^(1/tau^2)", tempered / tempered.sum(), torch.full((3,), TAU)))
    width = float(weights @ stds)
    solvers = {"ode": ProbabilityFlow(), "sea": PredictorCorrector(Karras(), options.steps, SEA(sigma_data=data.std))}
    ways = {
        "temperature 1": TemperedNoise(1.0),
        "tempering=noise": TemperedNoise(TAU),
        "tempering=score, sigma_data=auto": TemperedScore(TAU, data.std),
        f"tempering=score, sigma_data={width:.2f}, the modes' width": TemperedScore(TAU, width),
    }
    for way, tempering in ways.items():
        for name, sampler in solvers.items():
            x = Sample(sampler, tempering, dtype="float64").drawing.draw(sde, score, (2,), options.count)
            distance = (x[:, None] - means).norm(dim=-1)
            mode = distance.argmin(1)
            share = torch.bincount(mode, minlength=3) / options.count
            found = torch.stack([(x[mode == k] - x[mode == k].mean(0)).square().mean().sqrt() for k in range(3)])
            print(line(f"{way}, {name}", share, found / stds), flush=True)


def line(name: str, weights: torch.Tensor, widths: torch.Tensor) -> str:
    cells = (", ".join(f"{v:.3f}" for v in weights.tolist()), ", ".join(f"{v:.2f}" for v in widths.tolist()))
    return f"| {name} | {cells[0]} | {cells[1]} |"


if __name__ == "__main__":
    main()
