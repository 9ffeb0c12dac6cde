"""The error of the adaptive SDE solver at several tolerances and dimensions, as a Markdown table.

    python -m benchmarks.adaptive

The data are a mixture whose modes lie along the diagonal. The solver has the exact score and starts from exact draws of
p_T. Each cell is one run with seed 0: the W1 distance, along the diagonal, between the samples and the quantiles of
p_eps (the data perturbed to t = eps), in data units; in brackets, the score evaluations per sample. In the rows ``drawn
anew`` the noise of a rejected step is discarded, as published: their distance stops falling. The floor is the mean
distance of ten sets of ``count`` exact draws.
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
    """Returns the weights, means (3, d) and stds of the components."""
    positions = torch.tensor([-1.2, 1.2, 0.3], dtype=torch.float64) / math.sqrt(d)
    weights, stds = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.12, 0.25]).double()
    return weights, positions[:, None].expand(3, d), stds


def draw(sde: SDE, components, t: float, count: int) -> Tensor:
    """Draws exactly from p_t, t in the SDE's own time."""
    weights, means, stds = components
    k = torch.multinomial(weights, count, replacement=True)
    x, z = means[k], torch.randn(2, count, means.shape[1], dtype=torch.float64)
    return sde.perturb(x + stds[k, None] * z[0], torch.full((count,), t, dtype=torch.float64), z[1])


def quantiles(sde: SDE, components, count: int) -> Tensor:
    """Returns ``count`` equally spaced quantiles of p_eps along the diagonal."""
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
            components = mixture(d)
            exact = quantiles(sde, components, options.count)
            lowest = floor(sde, components, exact)
            for kept in (True, False):
                cells = [cell(sde, components, exact, kept, tolerance) for tolerance in options.tolerances]
                noise = "kept" if kept else "drawn anew"
                print(f"| {name} | {d} | {noise} | {' | '.join(cells)} | {lowest:.4f} |", flush=True)


def distance(x: Tensor, exact: Tensor) -> float:
    """Returns the W1 distance along the diagonal between samples and as many exact quantiles."""
    return float(((x.sum(1) / math.sqrt(x.shape[1])).sort().values - exact).abs().mean())


def floor(sde: SDE, components, exact: Tensor) -> float:
    """Returns the mean distance of ten sets of exact draws, each as large as ``exact``."""
    torch.manual_seed(0)
    return sum(distance(draw(sde, components, sde.eps, len(exact)), exact) for _ in range(10)) / 10


def cell(sde: SDE, components, exact: Tensor, kept: bool, tolerance: float) -> str:
    """Returns the distance of the samples at one tolerance, and in brackets the evaluations per sample."""
    torch.manual_seed(0)
    count, score = len(exact), Counted(Oracle(sde, components))
    sampler = AdaptiveSDE(rtol=tolerance, atol=0.39 * tolerance, last="none")  # the defaults' atol/rtol
    put_back = adaptive.NoiseStack.put_back if kept else lambda *_: None  # drops rejected noise
    with patch.object(adaptive.NoiseStack, "put_back", put_back):
        x = sampler(sde, score, draw(sde, components, sde.T, count), torch.randn_like)
    return f"{distance(x, exact):.4f} ({score.evaluations / count:.0f})"


if __name__ == "__main__":
    main()
