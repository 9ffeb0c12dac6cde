"""Other libraries, each by its own interface, for :mod:`benchmarks.peers`.

A library is a class with the name of its package and some of

    endpoints(problem)      deterministic solvers: from given noise to the end of its path
    draws(problem)          stochastic samplers
    likelihoods(problem)    log p(x)
    loops(net, steps)       a number of steps with a bare network

Noise levels are given as kappa = sigma/alpha and states as y = x/alpha, in which the probability flow of all SDEs is
the same. So the ends of different schedules can be compared with one exact flow.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.oracle import choice
from scoresde.conf import schema
from scoresde.likelihood import Likelihood
from scoresde.models import Oracle
from scoresde.samplers import Angle
from scoresde.sde_lib import SDE, BlockNoise, Counted


class Ratio:
    """The part of an SDE that an oracle needs, in y = x/alpha; the time is the noise-to-signal ratio kappa."""

    alpha = staticmethod(torch.ones_like)

    @staticmethod
    def sigma(kappa: Tensor) -> Tensor:
        return kappa


@dataclass
class End:
    """The end y = x/alpha of a solver's path from ``scale`` z at the level ``start`` to the level ``stop``.

    ``denoised`` is True if the last evaluation removed the noise left at ``stop``.
    """

    y: Tensor
    start: float
    stop: float
    denoised: bool
    scale: float


class Problem:
    """A mixture under an SDE, and noise to start from; the evaluations through every interface are counted.

    Arguments:
        label: the SDE's name.
        data: a mixture.
        z: standard normals (B, D).
        x: points to score (B, D), in model units.
    """

    def __init__(self, label: str, sde: SDE, data, z: Tensor, x: Tensor):
        self.label, self.sde, self.data, self.z, self.x = label, sde, data, z, x
        self.parts = data.components()
        self.score = Counted(Oracle(sde, self.parts).float())
        self.ratio = Counted(Oracle(Ratio(), self.parts).float())
        ends = torch.tensor([sde.T, sde.eps], dtype=torch.float64)
        self.alphas = sde.alpha(ends).tolist()
        self.kappas = (sde.sigma(ends) / sde.alpha(ends)).tolist()

    @property
    def evaluations(self) -> float:
        """The number of evaluations of samples since the last call."""
        found = self.score.evaluations + self.ratio.evaluations
        self.score.evaluations = self.ratio.evaluations = 0
        return found

    @property
    def start(self) -> Tensor:
        """x_T."""
        return self.sde.prior_std * self.z

    def end(self, x: Tensor, denoised: bool = False) -> End:
        """Returns the end of a path that went from T to eps under the problem's own SDE."""
        start, stop = self.kappas
        return End(x if denoised else x / self.alphas[1], start, stop, denoised, start)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the probability flow dx/dt as a user writes it, t one number or one for each sample.

        t is clamped to [eps, T], since some solvers evaluate outside, where sigma is not defined.
        """
        t = t.to(x.dtype).clamp(self.sde.eps, self.sde.T).expand(len(x))
        return self.sde.reverse(self.score, 0.0).drift(x, t)

    def denoised(self, y: Tensor, kappa: Tensor) -> Tensor:
        """Returns E[x_0 | y], y = x/alpha, with kappa one number or one for each sample."""
        kappa = kappa.to(y.dtype).expand(len(y))
        return y + kappa[:, None].square() * self.ratio(y, kappa)

    def noise(self, y: Tensor, kappa: Tensor) -> Tensor:
        """Returns the predicted noise at y = x/alpha."""
        kappa = kappa.to(y.dtype).expand(len(y))
        return -kappa[:, None] * self.ratio(y, kappa)


@dataclass(frozen=True)
class Solver:
    """A row of the tables of samplers.

    ``solve`` takes a budget of evaluations, or the tolerance if ``adaptive``; ``denoises`` is True if the last
    evaluation removes the noise that is left.
    """

    library: str
    name: str
    grid: str
    solve: Callable[[float], End]
    adaptive: bool = False
    denoises: bool = False

    @property
    def ours(self) -> bool:
        return self.library == "ours"

    @property
    def label(self) -> str:
        return self.name if self.ours else f"{self.library} {self.name}"


@dataclass(frozen=True)
class Scorer:
    """A row of the table of likelihoods: ``solve`` returns log p (B,); ``plain`` is True for the density at eps, with
    the standard prior.
    """

    library: str
    name: str
    solve: Callable[[], Tensor]
    plain: bool = True

    @property
    def ours(self) -> bool:
        return self.library == "ours"

    @property
    def label(self) -> str:
        return self.name if self.ours else f"{self.library} {self.name}"


class Library:
    """A library without any solver."""

    package = ""

    @property
    def missing(self) -> str:
        """The reason why the library cannot be used; empty if it can."""
        try:
            importlib.import_module(self.package)
        except Exception as error:
            return f"{self.package} cannot be imported ({type(error).__name__}: {str(error).splitlines()[0]})"
        return ""

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        yield from ()

    def draws(self, problem: Problem) -> Iterator[Solver]:
        yield from ()

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        yield from ()

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        yield from ()


@cache
def sampler(name: str):
    """Returns one of our samplers, as its yaml defines it."""
    node = schema.settle(choice("sampler", name), (2,), {"sigma_data": 1.0, "last": "flow"})
    return schema.build(node, "sampler")  # model units have std 1


def grid_name(sampler) -> str:
    named = {"LogSNR": "log-SNR", "Quadratic": "sqrt(t)", "Uniform": "t", "Karras": "EDM", "Angle": "theta"}
    kind = type(sampler.grid).__name__
    return f"centred {sampler.grid.width:g}" if kind == "Centred" else named[kind]


class Ours(Library):
    """This project: every sampler with its default grid, and Adams-Bashforth with even steps in theta as well.

    The last evaluation denoises, as by default; deterministic solvers have a row that stops at eps too, for comparison
    with solvers that do not denoise.
    """

    package = "scoresde"

    def solver(self, problem: Problem, name: str, denoise: bool = True, **words) -> Solver:
        made, adaptive = (
            replace(sampler(name), last="tweedie" if denoise else "none", **words),
            name in ("ode", "adaptive"),
        )
        cost = {"heun": 2, "pc": 2, "shark": 2}.get(name, 1)

        def solve(setting: float) -> End:
            if adaptive:
                words = {"rtol": setting, "atol": setting if name == "ode" else 0.4 * setting}
            else:
                words = {"steps": max(1, int(setting - denoise) // cost)}
            noise = BlockNoise(1, 0, len(problem.z), problem.z.shape[1:], problem.z.dtype)
            run = replace(made, **words)
            return problem.end(run(problem.sde, problem.score, problem.start, noise), denoise)

        grid = "a step a sample" if adaptive else grid_name(made)
        return Solver("ours", name if denoise else f"{name}, to eps", grid, solve, adaptive, denoise)

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        for denoise in (True, False):
            for name in ("ddim", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "adams_bashforth", "ode"):
                yield self.solver(problem, name, denoise)
            yield self.solver(problem, "adams_bashforth", denoise, grid=Angle())

    def draws(self, problem: Problem) -> Iterator[Solver]:
        for name in ("em", "reverse_diffusion", "ancestral", "pc", "sde_dpmpp_2m", "sea", "shark", "adaptive"):
            yield self.solver(problem, name)

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        for tolerance in (1e-3, 1e-5):
            for plain in (False, True):
                words = {"start": "plain", "prior": "standard"} if plain else {"moments": problem.data.moments()}
                made = Likelihood(rtol=tolerance, atol=tolerance, **words)
                name = f"{'plain' if plain else 'default'}, {tolerance:g}"
                yield Scorer(
                    "ours",
                    name,
                    lambda made=made: made(problem.sde, problem.score, problem.x).model_log_prob,
                    plain=plain,
                )


class Azula(Library):
    """azula, with the problem's own schedule; its grid is even in t."""

    package = "azula"
    orders = {"vAB": 3, "zAB": 3, "zEAB": 3, "xEAB": 3, "REAB": 2}

    def samplers(self, denoiser, **words) -> Iterator[tuple[str, int, Callable[[int], object]]]:
        """Yields (name, evaluations per step, steps -> sampler)."""
        from azula import sample

        for name, cost in (("DDIM", 1), ("Heun", 2)):
            yield name, cost, lambda n, name=name: getattr(sample, f"{name}Sampler")(denoiser, steps=n, **words)
        for name, most in self.orders.items():
            for order in range(2, most + 1):
                make = getattr(sample, f"{name}Sampler")
                yield (
                    f"{name} {order}",
                    1,
                    lambda n, make=make, order=order: make(denoiser, order=order, steps=n, **words),
                )

    def denoiser(self, problem: Problem):
        from azula.denoise import Denoiser, DiracPosterior

        sde = problem.sde

        class Exact(Denoiser):
            schedule = staticmethod(lambda t: (sde.alpha(t), sde.sigma(t)))

            def forward(self, x: Tensor, t: Tensor) -> DiracPosterior:
                return DiracPosterior(sde.denoise(problem.score, x, t.expand(len(x))))

        return Exact()

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        words = {"start": problem.sde.T, "stop": problem.sde.eps, "silent": True}
        for name, cost, make in self.samplers(self.denoiser(problem), **words):

            def solve(budget: float, make=make, cost=cost) -> End:
                return problem.end(make(max(1, int(budget) // cost))(problem.start))

            yield Solver("azula", name, "t", solve)

    def draws(self, problem: Problem) -> Iterator[Solver]:
        from azula import sample

        denoiser, words = self.denoiser(problem), {"start": problem.sde.T, "stop": problem.sde.eps, "silent": True}
        for name, cost, make in (
            ("DDPM", 1, sample.DDPMSampler),
            ("Ito", 1, sample.ItoSampler),
            ("PC", 2, sample.PCSampler),
        ):

            def solve(budget: float, make=make, cost=cost) -> End:
                return problem.end(make(denoiser, steps=int(budget) // cost, **words)(problem.start))

            yield Solver("azula", name, "t", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        from azula import denoise, noise, sample

        class Backbone(torch.nn.Module):
            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                return net(x, t.expand(len(x)))

        denoiser, x = denoise.KarrasDenoiser(Backbone(), noise.VPSchedule()), torch.randn(net.shape)
        for name, cost, make in self.samplers(denoiser, silent=True):
            if name in ("DDIM", "Heun", "vAB 3", "xEAB 2"):
                yield name, partial(make(steps // cost), x)
        for name in ("DDPM", "Ito"):
            sampler = getattr(sample, f"{name}Sampler")(denoiser, steps=steps, silent=True)
            yield name, partial(sampler, x)


class Diffusers(Library):
    """diffusers: VP in 1,000 whole steps, beta from 1e-4 to 0.02; VE by its EDM schedulers.

    The network gets the timestep, a whole number, and predicts for its noise level.
    """

    package = "diffusers"

    def vp(self) -> Iterator[tuple[str, str, int, Callable[[], object]]]:
        """Yields (name, grid, evaluations per step, make)."""
        import diffusers as d

        karras, lu = {"use_karras_sigmas": True}, {"use_lu_lambdas": True}
        betas = {"beta_start": 1e-4, "beta_end": 0.02}  # the default of all but Heun's
        yield "DDIM", "linspace", 1, lambda: d.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        for label, make in (
            ("DPM++2M", d.DPMSolverMultistepScheduler),
            ("UniPC", d.UniPCMultistepScheduler),
            ("DEIS", d.DEISMultistepScheduler),
        ):
            yield label, "linspace", 1, lambda make=make: make()
            yield label, "EDM", 1, lambda make=make: make(**karras)
        yield "DPM++2M", "log-SNR", 1, lambda: d.DPMSolverMultistepScheduler(**lu)
        yield "DPM++3M", "log-SNR", 1, lambda: d.DPMSolverMultistepScheduler(solver_order=3, **lu)
        yield "UniPC 3", "EDM", 1, lambda: d.UniPCMultistepScheduler(solver_order=3, **karras)
        yield "DEIS 3", "EDM", 1, lambda: d.DEISMultistepScheduler(solver_order=3, **karras)
        yield "Heun", "linspace", 2, lambda: d.HeunDiscreteScheduler(**betas)
        yield "Heun", "EDM", 2, lambda: d.HeunDiscreteScheduler(**betas, **karras)

    def edm(self, problem: Problem) -> Iterator[tuple[str, str, int, Callable[[], object]]]:
        import diffusers as d

        high, low = problem.kappas
        words = {"sigma_min": low, "sigma_max": high, "sigma_data": 1.0}
        for order in (2, 3):
            for schedule, grid in (("karras", "EDM"), ("exponential", "log-SNR")):
                yield (
                    f"DPM++{order}M",
                    grid,
                    1,
                    lambda order=order, schedule=schedule: d.EDMDPMSolverMultistepScheduler(
                        solver_order=order, sigma_schedule=schedule, **words
                    ),
                )
        yield "Euler", "EDM", 1, lambda: d.EDMEulerScheduler(**words)

    @staticmethod
    def run(problem: Problem, scheduler, steps: int) -> End:
        """Runs the loop of the library's own documentation, for VP or EDM schedulers."""
        scheduler.set_timesteps(steps)
        edm = "sigma_data" in scheduler.config
        x = problem.z * scheduler.init_noise_sigma
        if not edm:
            levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(x, t)
            if edm:
                kappa = torch.exp(4 * t)
                c_skip, c_out = 1 / (1 + kappa**2), kappa / (1 + kappa**2).sqrt()
                y = given * (1 + kappa**2).sqrt()
                output = (problem.denoised(y, kappa) - c_skip * y) / c_out
            else:
                kappa = levels[round(float(t))]
                output = problem.noise(given * (1 + kappa**2).sqrt(), kappa)
            x = scheduler.step(output, t, x).prev_sample
        if not hasattr(scheduler, "sigmas"):  # DDIM: from the first timestep's level to no noise at all
            start, last = float(levels[int(scheduler.timesteps[0])]), float(levels[int(scheduler.timesteps[-1])])
        else:
            start, last = float(scheduler.sigmas[0]), float(scheduler.sigmas[-2])
        sigma_space = edm or scheduler.init_noise_sigma != 1
        scale = float(scheduler.init_noise_sigma) if sigma_space else math.hypot(1.0, start)
        lowest = problem.kappas[1] if edm else float(levels[0])
        denoised = last <= 1.01 * lowest  # at the lowest level the last step denoises, else it integrates to kappa = 0
        return End(x, start, last if denoised else 0.0, denoised, scale)

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        for name, grid, cost, make in self.edm(problem) if problem.label == "ve" else self.vp():

            def solve(budget: float, make=make, cost=cost) -> End:
                return self.run(problem, make(), int(budget + cost - 1) // cost)

            yield Solver("diffusers", name, grid, solve, denoises=True)

    def draws(self, problem: Problem) -> Iterator[Solver]:
        import diffusers as d

        words = {"sigma_min": problem.kappas[1], "sigma_max": problem.kappas[0], "sigma_data": 1.0}
        sde = {"algorithm_type": "sde-dpmsolver++"}
        if problem.label == "ve":
            makes = [("SDE-DPM++2M", "EDM", lambda: d.EDMDPMSolverMultistepScheduler(**sde, **words))]
        else:
            karras = {"use_karras_sigmas": True}
            makes = [
                ("DDPM", "trailing", lambda: d.DDPMScheduler(clip_sample=False, timestep_spacing="trailing")),
                ("SDE-DPM++2M", "EDM", lambda: d.DPMSolverMultistepScheduler(**sde, **karras)),
            ]
        for name, grid, make in makes:
            yield Solver("diffusers", name, grid, lambda budget, make=make: self.run(problem, make(), int(budget)))

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        x = torch.randn(net.shape)

        def loop(make, steps: int) -> None:
            scheduler = make()
            scheduler.set_timesteps(steps)
            y = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                given = scheduler.scale_model_input(y, t)
                c = torch.full((1,), float(t)).expand(len(y))
                y = scheduler.step(net(given, c), t, y).prev_sample

        seen = set()
        for name, _, cost, make in self.vp():
            if name not in seen and name[-2:] not in ("3M", " 3"):
                seen.add(name)
                yield name, lambda make=make, cost=cost: loop(make, steps // cost)


class KDiffusion(Library):
    """k-diffusion: VE, EDM's grid, the last step ends at no noise.

    It is not in the extra ``peers``: it needs a torchvision whose operators load, and a setuptools older than 81.
    """

    package = "k_diffusion"

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        if problem.label != "ve":
            return
        from k_diffusion import sampling

        high, low = problem.kappas
        for name, cost in (("euler", 1), ("heun", 2), ("lms", 1), ("dpmpp_2m", 1)):

            def solve(budget: float, name=name, cost=cost) -> End:
                sigmas = sampling.get_sigmas_karras(int(budget + cost - 1) // cost, low, high)
                run = getattr(sampling, f"sample_{name}")
                return End(run(problem.denoised, problem.start, sigmas, disable=True), high, low, True, high)

            yield Solver("k-diffusion", name, "EDM", solve, denoises=True)

    def draws(self, problem: Problem) -> Iterator[Solver]:
        if problem.label != "ve":
            return
        from k_diffusion import sampling

        high, low = problem.kappas
        for name in ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde"):

            def solve(budget: float, name=name) -> End:
                run = getattr(sampling, f"sample_{name}")
                sigmas = sampling.get_sigmas_karras(int(budget), low, high)
                noise = {"noise_sampler": lambda *_: torch.randn_like(problem.z)}
                return End(run(problem.denoised, problem.start, sigmas, disable=True, **noise), high, low, True, high)

            yield Solver("k-diffusion", name, "EDM", solve, denoises=True)

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        if problem.label != "ve":
            return
        from k_diffusion import sampling

        high, low = problem.kappas
        for tolerance in (1e-3, 1e-5):

            def solve(tolerance=tolerance) -> Tensor:
                torch.manual_seed(0)
                found = sampling.log_likelihood(problem.denoised, problem.x, low, high, atol=tolerance, rtol=tolerance)
                return found[0]

            yield Scorer("k-diffusion", f"dopri5, one probe, {tolerance:g}", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        from k_diffusion import sampling
        from k_diffusion.layers import Denoiser

        class Inner(torch.nn.Module):
            def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
                return net(x, sigma.log() / 4)

        model, x = Denoiser(Inner(), sigma_data=0.5), 80 * torch.randn(net.shape)
        for name, cost in (("euler", 1), ("heun", 2), ("dpmpp_2m", 1), ("euler_ancestral", 1)):
            sigmas = sampling.get_sigmas_karras(steps // cost, 0.002, 80.0)
            yield name, partial(getattr(sampling, f"sample_{name}"), model, x, sigmas, disable=True)


class FlowMatching(Library):
    """flow_matching: its time goes from 0, noise, to 1, data, which we map linearly to [T, eps]."""

    package = "flow_matching"

    def solver(self, problem: Problem):
        from flow_matching.solver import ODESolver

        sde, way = problem.sde, problem.sde.eps - problem.sde.T
        return ODESolver(lambda x, t: way * problem.velocity(x, sde.T + way * t))

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        solver = self.solver(problem)
        for name, cost in (("euler", 1), ("midpoint", 2), ("rk4", 4)):

            def solve(budget: float, name=name, cost=cost) -> End:
                grid = torch.linspace(0, 1, max(1, int(budget) // cost) + 1)
                return problem.end(solver.sample(problem.start, None, name, time_grid=grid))

            yield Solver("flow_matching", name, "t", solve)

        def adaptive(tolerance: float) -> End:
            return problem.end(solver.sample(problem.start, None, "dopri5", tolerance, tolerance))

        yield Solver("flow_matching", "dopri5", "t", adaptive, adaptive=True)

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        solver = self.solver(problem)
        for exact, tolerance in ((True, 1e-3), (True, 1e-5), (False, 1e-5)):

            def solve(exact=exact, tolerance=tolerance) -> Tensor:
                torch.manual_seed(0)
                words = {"atol": tolerance, "rtol": tolerance, "exact_divergence": exact}
                return solver.compute_likelihood(problem.x, problem.sde.prior_log_prob, None, "dopri5", **words)[1]

            yield Scorer("flow_matching", f"dopri5, {'exact trace' if exact else 'one probe'}, {tolerance:g}", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        from flow_matching.solver import ODESolver

        solver, x = ODESolver(lambda x, t: net(x, t.expand(len(x)))), torch.randn(net.shape)
        for name, cost in (("euler", 1), ("midpoint", 2)):
            grid = torch.linspace(0, 1, steps // cost + 1)
            yield name, partial(solver.sample, x, None, name, time_grid=grid)


class ScoreModels(Library):
    """score_models: Euler-Maruyama, and a likelihood by Heun's steps with one probe."""

    package = "score_models"

    @staticmethod
    def make(net: torch.nn.Module, **words):
        """Returns one of its models without its progress bar, which no argument turns off."""
        from score_models import ScoreModel, base

        base.tqdm = partial(tqdm, disable=True)
        return ScoreModel(net, device="cpu", **words)

    def model(self, problem: Problem):
        sde = problem.sde

        class Scaled(torch.nn.Module):
            """The score times sigma: score_models divides a network's output by sigma."""

            def forward(self, t: Tensor, x: Tensor) -> Tensor:
                return sde.sigma(t)[:, None] * problem.score(x, t)

        if problem.label == "ve":
            words = {"sde": "ve", "sigma_min": sde.sigma_min, "sigma_max": sde.sigma_max}
        else:
            words = {"sde": "vp", "beta_min": sde.beta_min, "beta_max": sde.beta_max, "epsilon": sde.eps}
        return self.make(Scaled(), **words)

    def draws(self, problem: Problem) -> Iterator[Solver]:
        model = self.model(problem)
        yield Solver(
            "score_models", "EM", "t", lambda budget: problem.end(model.sample(problem.z.shape, int(budget)), True)
        )

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        model = self.model(problem)
        for steps in (25, 250):

            def solve(steps=steps) -> Tensor:
                torch.manual_seed(0)
                with torch.no_grad():
                    return model.log_likelihood(problem.x, ode_steps=steps, method="Heun", t0=problem.sde.eps)

            yield Scorer("score_models", f"Heun, one probe, {steps} steps", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        class Inner(torch.nn.Module):
            def forward(self, t: Tensor, x: Tensor) -> Tensor:
                return net(x, t)

        model = self.make(Inner(), sde="vp", beta_min=0.1, beta_max=20.0)
        yield "EM", lambda: model.sample(net.shape, steps)


def exact_divergence(velocity: Callable, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the velocity and its divergence as a user writes them: one vector-Jacobian product per coordinate."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, t)
        div = sum(
            torch.autograd.grad(v[:, i].sum(), x, retain_graph=i + 1 < x.shape[1])[0][:, i] for i in range(x.shape[1])
        )
    return v.detach(), div


class Torchdiffeq(Library):
    """torchdiffeq on the probability flow, written by hand: one step size for the whole batch."""

    package = "torchdiffeq"

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        from torchdiffeq import odeint

        sde = problem.sde

        def solve(tolerance: float) -> End:
            times = torch.tensor([sde.T, sde.eps])
            field = lambda t, x: problem.velocity(x, t)  # noqa: E731
            return problem.end(odeint(field, problem.start, times, method="dopri5", rtol=tolerance, atol=tolerance)[-1])

        yield Solver("torchdiffeq", "dopri5", "t", solve, adaptive=True)

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        from torchdiffeq import odeint

        sde, x = problem.sde, problem.x
        for tolerance in (1e-3, 1e-5):

            def solve(tolerance=tolerance) -> Tensor:
                z, change = odeint(
                    lambda t, state: exact_divergence(problem.velocity, state[0], t),
                    (x, torch.zeros(len(x))),
                    torch.tensor([sde.eps, sde.T]),
                    method="dopri5",
                    rtol=tolerance,
                    atol=tolerance,
                )
                return sde.prior_log_prob(z[-1]) + change[-1]

            yield Scorer("torchdiffeq", f"dopri5, exact trace, {tolerance:g}", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        from torchdiffeq import odeint

        x, field = torch.randn(net.shape), lambda t, x: net(x, t.expand(len(x)))
        yield "euler", lambda: odeint(field, x, torch.linspace(0, 1, steps + 1), method="euler")
        yield "dopri5", lambda: odeint(field, x, torch.tensor([0.0, 1.0]), method="dopri5", rtol=1e-4, atol=1e-4)


class Torchode(Library):
    """torchode on the probability flow, written by hand: a step size per sample; finished ones stay in the batch."""

    package = "torchode"

    @staticmethod
    def solve(field: Callable, y: Tensor, t0: float, t1: float, tolerance: float) -> Tensor:
        import torchode

        term = torchode.ODETerm(field)
        step = torchode.Tsit5(term=term)
        solver = torchode.AutoDiffAdjoint(step, torchode.IntegralController(tolerance, tolerance, term=term))
        start, stop = torch.full((len(y),), t0), torch.full((len(y),), t1)
        return solver.solve(torchode.InitialValueProblem(y0=y, t_start=start, t_end=stop)).ys[:, -1]

    def endpoints(self, problem: Problem) -> Iterator[Solver]:
        sde = problem.sde

        def solve(tolerance: float) -> End:
            field = lambda t, x: problem.velocity(x, t)  # noqa: E731
            return problem.end(self.solve(field, problem.start, sde.T, sde.eps, tolerance))

        yield Solver("torchode", "tsit5", "t", solve, adaptive=True)

    def likelihoods(self, problem: Problem) -> Iterator[Scorer]:
        sde, x = problem.sde, problem.x

        def field(t: Tensor, state: Tensor) -> Tensor:
            v, div = exact_divergence(problem.velocity, state[:, :-1], t)
            return torch.cat([v, div[:, None]], dim=1)

        for tolerance in (1e-3, 1e-5):

            def solve(tolerance=tolerance) -> Tensor:
                end = self.solve(field, torch.nn.functional.pad(x, (0, 1)), sde.eps, sde.T, tolerance)
                return sde.prior_log_prob(end[:, :-1]) + end[:, -1]

            yield Scorer("torchode", f"tsit5, exact trace, {tolerance:g}", solve)

    def loops(self, net, steps: int) -> Iterator[tuple[str, Callable[[], object]]]:
        x = torch.randn(net.shape)
        yield "tsit5", lambda: self.solve(lambda t, x: net(x, t), x, 0.0, 1.0, 1e-4)


LIBRARIES: list[Library] = [
    Ours(),
    Azula(),
    Diffusers(),
    KDiffusion(),
    FlowMatching(),
    ScoreModels(),
    Torchdiffeq(),
    Torchode(),
]
