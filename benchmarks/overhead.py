"""What a sampling step costs beside the bare network: the time of a step over the time of one network evaluation.

    python -m benchmarks.overhead

Every call that a sampler makes of its network F(x, c) is noted once; then the same calls, of as many samples and with
one noise level for the batch or one a sample, are made without a sampler, immediately before and after each of the
sampler's runs and in the same process, so that the machine's drift cancels. Samplers take turns. 1.00 is the limit.
"""

import argparse
import time
from statistics import median

import torch

from models import EDM, MLP, ScoreModel, UNet
from samplers import Ancestral, EulerMaruyama, Langevin, PredictorCorrector, ProbabilityFlow, ReverseDiffusion, Uniform
from sde_lib import VP, BlockNoise

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
        "ode (tsit5, a step for each sample)": ProbabilityFlow(rtol=tolerance, atol=tolerance),
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
    torch.nn.init.normal_(net.last.weight if hasattr(net.last, "weight") else net.last[-1].weight, std=0.02)
    score = ScoreModel(sde, net, EDM(1.0))
    x, one, many = torch.randn(shape), torch.zeros(1), torch.zeros(shape[0])

    def run(sampler) -> float:
        noise = BlockNoise(0, 0, shape[0], shape[1:], torch.float32)
        start, started = noise(), time.perf_counter()
        sampler(sde, score, start, noise)
        return time.perf_counter() - started

    def replay(calls: list[tuple[int, bool]]) -> float:
        started = time.perf_counter()
        for size, shared in calls:
            net(x[:size], one.expand(size) if shared else many[:size])
        return time.perf_counter() - started

    calls: dict[str, list[tuple[int, bool]]] = {}
    for label, sampler in contestants.items():  # also warms up
        calls[label] = seen = []
        hook = net.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append((len(given[0]), given[1].stride(0) == 0))
        )
        run(sampler)
        hook.remove()
    results: dict[str, list[float]] = {}
    for _ in range(rounds):
        for label, sampler in contestants.items():
            before, seconds, after = replay(calls[label]), run(sampler), replay(calls[label])
            results.setdefault(label, []).append(seconds / ((before + after) / 2))
    parameters = sum(p.numel() for p in net.parameters())
    print(f"\n{name}, {parameters:,} parameters, threads={threads}, {rounds} rounds: time / bare network")
    for label, ratios in results.items():
        spread = f"[{min(ratios):.2f} - {max(ratios):.2f}]"
        print(f"  {label:<38} {median(ratios):.2f}  {spread}  {len(calls[label]):>4} calls", flush=True)


if __name__ == "__main__":
    main()
