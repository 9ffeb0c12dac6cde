"""The error of the adaptive SDE solver as the tolerance falls, in few and in many dimensions.

    python -m benchmarks.adaptive

The data are a mixture whose modes lie along the diagonal. The solver has the exact score and starts from exact draws of
p_T. A cell has the 1-D Wasserstein distance between the samples along the diagonal and the exact p_eps (its quantiles),
and the evaluations per sample. The rows ``drawn anew`` drop rejected noise, as the published algorithm does: their
distance stops falling. The floor is the distance of as many exact draws.
"""

import argparse
import math
from unittest.mock import patch

import torch
from torch import Tensor

from scoresde.models import Oracle
from scoresde.samplers import AdaptiveSDE, adaptive
from scoresde.sde_lib import SDE, VE, VP, Counted


def mixture(d: int) -> tuple[Tensor, Tensor, Tensor]:
    levels = torch.tensor([-1.2, 1.2, 0.3], dtype=torch.float64) / math.sqrt(d)
    weights, stds = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.12, 0.25]).double()
    return weights, levels[:, None].expand(3, d), stds


def draw(sde: SDE, components, t: float, count: int) -> Tensor:
    """Draws exactly from p_t."""
    weights, means, stds = components
    k = torch.multinomial(weights, count, replacement=True)
    x, z = means[k], torch.randn(2, count, means.shape[1], dtype=torch.float64)
    return sde.perturb(x + stds[k, None] * z[0], torch.full((count,), t, dtype=torch.float64), z[1])


def quantiles(sde: SDE, components, count: int) -> Tensor:
    """Returns the quantiles of p_eps along the diagonal."""
    weights, means, stds = components
    eps = torch.tensor(sde.eps, dtype=torch.float64)
    alpha, sigma = sde.alpha(eps), sde.sigma(eps)
    points = torch.linspace(-4, 4, 40_001, dtype=torch.float64)
    centres, widths = alpha * means[:, 0] * math.sqrt(means.shape[1]), (alpha**2 * stds**2 + sigma**2).sqrt()
    cumulative = (weights * torch.special.ndtr((points[:, None] - centres) / widths)).sum(1)
    return points[torch.searchsorted(cumulative, (torch.arange(count).double() + 0.5) / count).clamp_max(40_000)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.2, 0.05, 0.02, 0.005])
    options = parser.parse_args(argv)
    cells = " | ".join(f"rtol={tolerance}" for tolerance in options.tolerances)
    print(f"| SDE | d | rejected noise | {cells} | floor |\n|---|---|---|{'---|' * (len(options.tolerances) + 1)}")
    for name, sde in (("VP", VP()), ("VE", VE())):
        for d in options.dimensions:
            for kept in (True, False):
                row(name, sde, d, kept, options.count, options.tolerances)


def row(name: str, sde: SDE, d: int, kept: bool, count: int, tolerances: list[float]) -> None:
    components = mixture(d)
    exact, score = quantiles(sde, components, count), Oracle(sde, components)

    def distance(x: Tensor) -> float:
        return float(((x.sum(1) / math.sqrt(d)).sort().values - exact).abs().mean())

    cells = []
    for tolerance in tolerances:
        torch.manual_seed(0)
        counted, sampler = Counted(score), AdaptiveSDE(rtol=tolerance, atol=0.39 * tolerance, last="none")
        with patch.object(adaptive.NoiseStack, "put_back", adaptive.NoiseStack.put_back if kept else lambda *_: None):
            x = sampler(sde, counted, draw(sde, components, sde.T, count), torch.randn_like)
        cells.append(f"{distance(x):.4f} ({counted.evaluations / count:.0f})")
    floor = sum(distance(draw(sde, components, sde.eps, count)) for _ in range(10)) / 10
    print(f"| {name} | {d} | {'kept' if kept else 'drawn anew'} | {' | '.join(cells)} | {floor:.4f} |", flush=True)


if __name__ == "__main__":
    main()
