"""What a sampling step costs beside the bare network: the time of a step over the time of one network evaluation.

    python -m benchmarks.overhead

The network is called as F(x, c) without a sampler, immediately before and after each sampler's run and in the same
process, so that the machine's drift cancels; samplers take turns. Per call = seconds / (network calls x seconds of
a bare call), 1.00 being the limit. The bare network gets what the sampler gives it: one noise level for the whole
batch, which it embeds once, or one a sample (the last column: the same beside a network that embeds every sample's).
"""

import argparse
import time
from statistics import median

import torch

from models import EDM, MLP, ScoreModel, UNet
from samplers import Ancestral, EulerMaruyama, Langevin, PredictorCorrector, ProbabilityFlow, ReverseDiffusion, Uniform
from sde_lib import VP, BlockNoise, Counted

NETWORKS = {
    "mlp 128x3, (512, 2)": (lambda: MLP((2,)), (512, 2), 100, 1e-3),
    "unet 1M, (64, 1, 28, 28)": (
        lambda: UNet((1, 28, 28), channels=(32, 64, 96), attention=(7,)),
        (64, 1, 28, 28),
        4,
        1e-1,
    ),
}


def samplers(steps: int, tolerance: float) -> dict:
    return {
        "em": PredictorCorrector(Uniform(), steps, EulerMaruyama()),
        "pc": PredictorCorrector(Uniform(), steps, ReverseDiffusion(), Langevin()),
        "ancestral": PredictorCorrector(Uniform(), steps, Ancestral()),
        "ode (dopri5, a step for each sample)": ProbabilityFlow(rtol=tolerance, atol=tolerance),
        "ode (torchdiffeq.dopri5)": ProbabilityFlow(method="torchdiffeq.dopri5", rtol=tolerance, atol=tolerance),
        "ode (torchdiffeq.euler)": ProbabilityFlow(method="torchdiffeq.euler", steps=steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="parts of network names")
    options = parser.parse_args()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, (make, shape, steps, tolerance) in NETWORKS.items():
            if not options.only or any(part in name for part in options.only):
                table(name, make, shape, samplers(steps, tolerance), threads, options.rounds)


@torch.no_grad()
def table(name: str, make, shape: tuple[int, ...], contestants: dict, threads: int, rounds: int) -> None:
    torch.manual_seed(0)
    sde, net = VP(), make().eval().requires_grad_(False)
    score = ScoreModel(sde, net, EDM(1.0))
    x, levels = torch.randn(shape), {True: torch.zeros(1).expand(shape[0]), False: torch.zeros(shape[0])}
    calls = 40 if len(shape) == 2 else 2

    def bare(shared: bool) -> float:
        c = levels[shared]
        started = time.perf_counter()
        for _ in range(calls):
            net(x, c)
        return (time.perf_counter() - started) / calls

    results: dict[str, list[float]] = {}
    against_many: dict[str, list[float]] = {}
    bare(False)
    for turn in range(rounds + 1):
        for label, sampler in contestants.items():
            counted, noise = Counted(score), BlockNoise(turn, 0, shape[0], shape[1:], torch.float32)
            start = noise()
            shared = isinstance(sampler, PredictorCorrector)
            before, before_many = bare(shared), bare(False)
            started = time.perf_counter()
            sampler(sde, counted, start, noise)
            seconds = time.perf_counter() - started
            one, many = (before + bare(shared)) / 2, (before_many + bare(False)) / 2
            if turn:  # the first round warms up
                # rows rather than calls: the per-sample solver's batch shrinks as samples finish
                evaluations = counted.evaluations / shape[0]
                results.setdefault(label, []).append(seconds / (evaluations * one))
                against_many.setdefault(label, []).append(seconds / (evaluations * many))
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"\n{name}, {parameters:,} parameters, threads={threads}, {rounds} rounds: time per evaluation / bare network"
    )
    for label, ratios in results.items():
        spread = f"[{min(ratios):.2f} - {max(ratios):.2f}]"
        print(f"  {label:<38} {median(ratios):.2f}  {spread}  {median(against_many[label]):.2f}", flush=True)


if __name__ == "__main__":
    main()
