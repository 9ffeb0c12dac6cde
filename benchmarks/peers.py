"""Other libraries' solvers and ours: error, evaluations and time, on the same exact score.

    pip install -e '.[peers]'
    python -m benchmarks.peers                          everything, three quarters of an hour on one thread
    python -m benchmarks.peers --only endpoints --data mixture --sde ve
    python -m benchmarks.peers --only likelihood --rounds 1

Parts:

endpoints    deterministic solvers: the distance of their ends to the exact flow from the same noise, at each budget of
             network evaluations; an adaptive solver runs at the tolerance that is best within the budget
draws        stochastic samplers: the sliced Wasserstein distance to exact draws over that between two sets of exact
             draws (the floor), and the relative error of the variance within components
likelihood   log p against the closed form, and the solver's own error: against the exact density at eps, with the
             standard prior
overhead     100 steps with the same small network, over the bare network (``--steps``)

The data are mixtures in 2 and in 16 dimensions; the SDEs are VE and VP. Each library gets the score through its own
interface. It has its own time grid (a recommended one, named in the table) and, where they cannot be set, its own first
and last noise level; it is compared with the exact flow between these. All run in float32 on one thread. The libraries
take turns; times are medians of CPU time, as multiples of the bare score's for as many evaluations. A library that is
not installed is named and left out. :mod:`benchmarks.libraries` holds the interfaces.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks import overhead
from benchmarks.libraries import LIBRARIES, End, Library, Problem, Ratio, Solver
from scoresde.data import Mixture
from scoresde.metrics import sliced_wasserstein
from scoresde.models import MLP, Oracle
from scoresde.sde_lib import VE, VP, integrate

PARTS = ("endpoints", "draws", "likelihood", "overhead")
TOLERANCES = [10 ** (-i / 2) for i in range(1, 14)]


def mixture(name: str) -> Mixture:
    """Returns the mixture of ``data=mixture``, or one of eight components in sixteen dimensions."""
    if name == "mixture":
        return Mixture([0.5, 0.3, 0.2], [[-2.0, -1.0], [2.0, -0.5], [0.5, 2.5]], [0.6, 0.4, 0.8], count=20_000)
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(8, 16)), rng.uniform(0.2, 0.6, size=8)
    return Mixture([1.0] * 8, means.tolist(), stds.tolist(), count=20_000)


def problem(name: str, label: str, count: int, points: int) -> Problem:
    data = mixture(name)
    z = torch.randn(count, data.dim, generator=torch.Generator().manual_seed(1))
    return Problem(label, VE() if label == "ve" else VP(), data, z, data.encode(data.test[:points]))


# -- The truth


def flow(parts, y: Tensor, start: float, stop: float) -> Tensor:
    """Returns the end of the exact flow in y = x/alpha from one level of kappa to another, in float64.

    The variable of integration is log kappa.
    """
    oracle = Oracle(Ratio(), parts)

    def field(y: Tensor, log_kappa: Tensor, rows) -> Tensor:
        kappa = log_kappa.exp()
        return -kappa[:, None].square() * oracle(y, kappa)

    ends = torch.tensor([start, stop], dtype=torch.float64).log().tolist()
    with torch.no_grad():
        return integrate(field, y.double(), *ends, method="torchdiffeq.dopri8", rtol=1e-9, atol=1e-9)


def denoise(parts, y: Tensor, kappa: float) -> Tensor:
    levels = torch.full((len(y),), kappa, dtype=torch.float64)
    return y + kappa**2 * Oracle(Ratio(), parts)(y, levels)


class Truth:
    """The exact ends of the paths that solvers follow."""

    def __init__(self, problem: Problem):
        self.problem, self.cache = problem, {}

    def error(self, end: End) -> Tensor:
        """Returns the distance of each sample's end to its exact one, root mean square over coordinates."""
        key = tuple(round(v, 9) for v in (end.start, end.stop, end.scale))
        if key not in self.cache:
            y, stop = end.scale * self.problem.z, max(end.stop, 1e-4)  # from there on denoising is exact to 1e-7
            self.cache[key] = flow(self.problem.parts, y, end.start, stop)
        y = self.cache[key]
        if end.denoised or end.stop == 0:
            y = denoise(self.problem.parts, y, max(end.stop, 1e-4))
        return (end.y.double() - y).square().mean(1).sqrt()


def seconds_of(run: Callable[[], object]) -> tuple[float, object]:
    """Returns the CPU time of a run on one thread, which other processes do not affect, and what it returns."""
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def bare(problem: Problem) -> float:
    """Returns the time of one evaluation of the bare score."""
    t = torch.full((1,), 0.5).expand(len(problem.z))
    with torch.no_grad():
        return seconds_of(lambda: [problem.score(problem.start, t) for _ in range(10)])[0] / 10


def each(libraries: list[Library], part: str, *arguments) -> list:
    return [row for library in libraries for row in getattr(library, part)(*arguments)]


def attempt(label: str, run: Callable[[], object]):
    """Returns the time of a run and what it returns; None, and prints one line, if the library fails."""
    try:
        seconds, found = seconds_of(run)
    except Exception as error:
        print(f"  {label}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
        return None
    return seconds, found


# -- Deterministic solvers


Cells = dict[float, tuple[float, ...]]
"""The number of evaluations and the errors, for each budget."""


def endpoints(libraries: list[Library], name: str, label: str, options) -> None:
    task = problem(name, label, options.count, 1)
    truth, budgets = Truth(task), options.budgets
    found: dict[Solver, Cells] = {}
    last: dict[Solver, tuple[float, float]] = {}  # the setting of the largest budget, and its evaluations
    for solver in each(libraries, "endpoints", task):
        found[solver] = cells = {}
        for setting in TOLERANCES if solver.adaptive else budgets:
            _ = task.evaluations
            ran = attempt(f"{solver.label} at {setting:.3g}", lambda s=solver, v=setting: s.solve(v))
            nfe = task.evaluations / len(task.z)
            if ran is None:
                continue
            error = truth.error(ran[1])
            cell = (nfe, float(error.square().mean().sqrt()), float(error.median()))
            for budget in budgets if solver.adaptive else [setting]:
                if nfe <= budget + 0.5 and (budget not in cells or cell[1] < cells[budget][1]):
                    cells[budget], last[solver] = cell, (setting, nfe)
            if solver.adaptive and nfe > budgets[-1]:
                break
    times = defaultdict(list)
    for _ in range(options.rounds):
        for solver, (setting, nfe) in last.items():
            before, own, after = bare(task), seconds_of(lambda s=solver, v=setting: s.solve(v))[0], bare(task)
            times[solver].append(own / nfe / ((before + after) / 2))

    columns = "".join(f"| NFE {budget:<4} rms     median  " for budget in budgets)
    print(f"{'':<24}{'grid':<16}{columns}| time/bare")
    for solver, cells in found.items():
        line = f"{solver.label:<24.24}{solver.grid:<16}"
        for budget in budgets:
            nfe, rms, middle = cells.get(budget, (0.0, 0.0, 0.0))
            line += f"| {nfe:<8.0f} {rms:<7.1e} {middle:<8.1e}" if budget in cells else f"| {'-':<25}"
        print(line + (f"| {median(times[solver]):.2f}" if solver in times else "|"), flush=True)
    for denoises, words in ((True, "denoised"), (False, "to eps")):
        for measure, which in (("rms", 1), ("median", 2)):
            rows = {solver: cells for solver, cells in found.items() if solver.denoises == denoises}
            print(f"{words}, best {measure}, ours over theirs: " + verdict(rows, budgets, which))


def verdict(found: dict[Solver, Cells], budgets: list[float], which: int) -> str:
    """Returns in words the best of ours over the best of theirs at each budget."""
    parts = []
    for budget in budgets:
        sides = []
        for ours in (True, False):
            rows = {s: cells[budget][which] for s, cells in found.items() if budget in cells and s.ours == ours}
            sides.append(min(rows.items(), key=lambda row: row[1]) if rows else None)
        if all(sides):
            (a, x), (b, y) = sides
            parts.append(f"{budget}: {x / y:.2f} ({a.label} {x:.1e}, {b.label} {b.grid} {y:.1e})")
    return "; ".join(parts) or "nothing to compare"


# -- Stochastic samplers


def within(parts, x: Tensor) -> float:
    """Returns the variance within components over the exact one, minus 1; its mean is 0 for exact draws."""
    weights, means, stds = parts
    square = (x[:, None] - means).square().sum(-1)
    r = torch.softmax(weights.log() - means.shape[1] * stds.log() - 0.5 * square / stds.square(), dim=1)
    return float((r * square / stds.square()).sum(1).mean() / means.shape[1] - 1)


def exact_draws(parts, count: int, seed: int) -> Tensor:
    """Draws exactly from the mixture."""
    weights, means, stds = parts
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(weights, count, replacement=True, generator=generator)
    noise = torch.randn(count, means.shape[1], dtype=torch.float64, generator=generator)
    return means[k] + stds[k, None] * noise


def draws(libraries: list[Library], name: str, label: str, options) -> None:
    task = problem(name, label, options.draws, 1)
    task_rows: list[Solver] = each(libraries, "draws", task)
    real = exact_draws(task.parts, options.draws, 0)
    others = [exact_draws(task.parts, options.draws, seed) for seed in (1, 2, 3, 4)]
    floor = median(sliced_wasserstein(real, other) for other in others)
    spread = max(abs(within(task.parts, other)) for other in others)
    print(f"floor: distance {floor:.4f}, variance within components {spread:.1%}")
    budgets, found = options.draw_budgets, {}
    print(f"{'':<28}{'grid':<16}" + "".join(f"| NFE {b:<4} SW/floor var    " for b in budgets) + "| time/bare")
    for solver in task_rows:
        cells, ratio = {}, float("nan")
        for setting in (0.5, 0.2, 0.1, 0.05, 0.02) if solver.adaptive else budgets:
            _ = task.evaluations
            torch.manual_seed(1)
            ran = attempt(f"{solver.label} at {setting:.3g}", lambda s=solver, v=setting: s.solve(v))
            nfe = task.evaluations / len(task.z)
            if ran is None:
                continue
            x = ran[1].y.double()
            cell = (nfe, sliced_wasserstein(x, real) / floor, within(task.parts, x))
            ratio = ran[0] / (bare(task) * nfe)
            for budget in budgets if solver.adaptive else [setting]:
                if nfe <= budget + 0.5 and (budget not in cells or cell[1] < cells[budget][1]):
                    cells[budget] = cell
        found[solver] = cells
        line = f"{solver.label:<28.28}{solver.grid:<16}"
        for budget in budgets:
            cell = cells.get(budget)
            line += f"| {cell[0]:<8.0f} {cell[1]:<8.2f} {cell[2]:<+7.1%}" if cell else f"| {'-':<24}"
        print(f"{line}| {ratio:.2f}", flush=True)
    print("best distance over the floor, ours over theirs: " + verdict(found, budgets, 1))


# -- Likelihood


def likelihood(libraries: list[Library], name: str, label: str, options) -> None:
    task = problem(name, label, 1, options.points)
    sde, parts, x = task.sde, task.parts, task.x.double()
    zero = torch.zeros(len(x), dtype=torch.float64)
    exact = Oracle(Ratio(), parts).log_prob(x, zero)
    # the plain likelihood of a solver without error: the exact density at eps, with the standard prior in place of p_T
    oracle, (stop, start) = Oracle(sde, parts), task.kappas[::-1]
    z = task.alphas[0] * flow(parts, x / task.alphas[1], stop, start)
    eps, T = torch.full_like(zero, sde.eps), torch.full_like(zero, sde.T)
    plain = oracle.log_prob(x, eps) + sde.prior_log_prob(z) - oracle.log_prob(z, T)
    print(f"the blur and the prior cost the plain density {float((plain - exact).square().mean().sqrt()):.1e} (rms)")

    rows = each(libraries, "likelihoods", task)
    times, found = defaultdict(list), {}
    for round in range(options.rounds):
        for row in list(rows):
            _ = task.evaluations
            ran = attempt(row.label, row.solve)
            if ran is None:
                rows.remove(row)
                continue
            times[row.label].append(ran[0])
            if round == 0:
                nfe, log_p = task.evaluations / len(x), ran[1].double()
                off, own = (log_p - exact).abs(), (log_p - plain).abs() if row.plain else None
                found[row.label] = nfe, off, own
    print(f"{'':<44}{'NFE':>6} | {'rms':<8}{'worst':<8} | solver's: {'rms':<8}{'worst':<8} | {'seconds':<8} over ours")
    base = median(times["default, 1e-05"]) if "default, 1e-05" in times else float("nan")
    for row in rows:
        nfe, off, own = found[row.label]
        solver = f"{own.square().mean().sqrt():<8.1e}{own.max():<8.1e}" if own is not None else " " * 16
        print(
            f"{row.label:<44}{nfe:>6.0f} | {off.square().mean().sqrt():<8.1e}{off.max():<8.1e} |"
            f"           {solver} | {median(times[row.label]):<8.3f} {median(times[row.label]) / base:.2f}"
        )
    print(flush=True)


# -- Overhead


def loops(libraries: list[Library], rounds: int, steps: int) -> None:
    net = overhead.network(lambda: MLP((2,)))
    net.shape = (512, 2)
    runs, own = overhead.loops(net, net.shape, steps, 1e-3), len(overhead.samplers(1, 1e-3))
    for library in libraries:
        runs |= {f"{library.package} {label}": run for label, run in library.loops(net, steps)}
    for label, run in list(runs.items()):
        if attempt(label, run) is None:
            del runs[label]
    found = overhead.ratios(net, runs, rounds)
    print(f"\noverhead: MLP 128 x 3, 512 vectors, 1 thread, {rounds} rounds: ", end="")
    overhead.table(dict(sorted(found.items(), key=lambda row: median(row[1][0]))))
    names = list(runs)
    ours, theirs = ({n: median(found[n][0]) for n in side} for side in (names[:own], names[own:]))
    if theirs:
        best, peer = min(ours, key=ours.get), min(theirs, key=theirs.get)
        print(f"least: {best} {ours[best]:.2f}, {peer} {theirs[peer]:.2f}; median of all: ", end="")
        print(f"ours {median(ours.values()):.2f}, theirs {median(theirs.values()):.2f}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", nargs="+", choices=("mixture", "mixture16"), default=["mixture", "mixture16"])
    parser.add_argument("--sde", nargs="+", choices=("ve", "vp"), default=["ve", "vp"])
    parser.add_argument("--libraries", nargs="+", default=[], help="only these packages, and ours")
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--draw-budgets", type=int, nargs="+", default=[20, 50, 100, 200], help="those of draws")
    parser.add_argument("--steps", type=int, default=100, help="of the samplers of overhead, at least 2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="samples of a deterministic solver")
    parser.add_argument("--draws", type=int, default=20_000, help="samples of a stochastic one")
    parser.add_argument("--points", type=int, default=300, help="points to score")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    libraries = []
    for library in LIBRARIES:
        if options.libraries and library.package not in [*options.libraries, "scoresde"]:
            continue
        if library.missing:
            print(f"{library.missing}: its rows are left out")
        else:
            libraries.append(library)
    for part, run in (("endpoints", endpoints), ("draws", draws), ("likelihood", likelihood)):
        for name in options.data if part in options.only else []:
            for label in options.sde:
                print(f"\n{part}: {name}, {label}", flush=True)
                run(libraries, name, label, options)
    if "overhead" in options.only:
        loops(libraries, 3 * options.rounds, options.steps)


if __name__ == "__main__":
    main()
