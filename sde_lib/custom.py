r"""The SDE g(t) dw for a positive diffusion g, with its kernel from quadrature.

.. math:: dx = g(t)\,dw, \qquad \sigma(t)^2 = \int_0^t g(u)^2\,du

The diffusion is an expression in t, written in the yaml (``sde=custom sde.diffusion='1 + 5*t**2'``; see
:mod:`scoresde.sde_lib.expression`), or in Python any callable of a tensor of times.

The quadrature is Gauss-Legendre of 16 nodes on panels of unequal width. A panel is halved until two conditions hold:

* **The bounds are close.** With l <= |g| <= h on a panel of width w, its part of sigma^2 lies in [w l^2, w h^2],
  whatever g does between the nodes. Interval arithmetic gives rigorous bounds for an expression; they may differ by
  :math:`h^2 - l^2 \le \rho\max(l^2, V/t)`, with rho = ``SLACK``, t the panel's left edge or eps if that is later, and
  V the sum of all w l^2 up to this t. (Panels with a share of the variance at eps below ``NOTHING`` need no close
  bounds.) So at t in [eps, T] the sums of w l^2 and of w h^2, between which sigma^2 lies, usually differ by a few per
  cent. For a callable the extremes of its values at the nodes and at ``SAMPLES`` irregular places replace the bounds,
  and detail narrower than about T / ``SAMPLES`` may not be found.
* **The rule has converged.** The integrals over the panel and over its halves agree to ``ACCURACY`` of the variance up
  to there.

At a pole of g at t = 0, as of ``t**-0.4``, the panel next to 0 is halved until the integral over it, the rest of a
geometric series, is negligible. A function is refused if it needs more than ``MOST`` panels, has a pole elsewhere, or
has a square without an integral.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval
from .expression import Expression, parse
from .quadrature import gauss_legendre

PANELS = 64  # in the first round
MOST = 2**16  # panels
DEEPEST = 300  # rounds of halving; only panels next to 0 can be halved more than some 50 times
NODES, WEIGHTS = gauss_legendre(16)
SLACK = 0.05  # rho in the module docstring
NOTHING = 1e-9  # panels with a smaller share of the variance at eps need no close bounds
REST = 1e-7  # the share of the variance at eps that the panel next to a pole at 0 may have
STILL = 1e-12  # g below this share of its rms up to t counts as adding no noise
LEAST = 1e-18  # the smallest sigma(eps): float32 can hold its square
ACCURACY = 1e-11  # of the rule, relative to the variance up to the panel
SAMPLES = 2**16  # irregular places at which a callable is evaluated

Diffusion = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Panels:
    """The edges of panels, (n + 1,), and ``cumulative``, the integral of g^2 from 0 to each edge, (n + 1,)."""

    edges: Tensor
    cumulative: Tensor


def integrals(function: Diffusion, low: Tensor, high: Tensor) -> Tensor:
    """Returns the integrals of g^2 over the panels [low, high], (n,), by one rule each."""
    width = high - low
    return function(low[:, None] + width[:, None] * NODES).square() @ WEIGHTS * width


def sampled_bounds(function: Diffusion, T: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns a function from panels [low, high], (n,) each, to the least and the greatest value of a callable on each:
    among its values at the nodes, at the right end and at the irregular places in the panel.
    """
    jitter = torch.rand(SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = (torch.arange(SAMPLES, dtype=torch.float64) + jitter) * (T / SAMPLES)
    values = function(places)

    def bounds(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        inside = function(low[:, None] + (high - low)[:, None] * torch.cat([NODES, NODES.new_ones(1)]))
        least, greatest = inside.amin(1), inside.amax(1)
        owner = torch.searchsorted(high.contiguous(), places).clamp_max(len(high) - 1)
        owned = (places >= low[owner]) & (places <= high[owner])  # the panels leave gaps where others are settled
        least = least.scatter_reduce(0, owner[owned], values[owned], "amin")
        greatest = greatest.scatter_reduce(0, owner[owned], values[owned], "amax")
        lost = inside.isnan().any(1)
        return least.masked_fill(lost, -torch.inf), greatest

    return bounds


def rest_of_series(function: Diffusion, edge: float) -> float:
    """Returns the integral of g^2 from 0 to an edge, if those over [edge, 2 edge], [2 edge, 4 edge] ... are a geometric
    series, as they are for a power of t; infinite where it does not converge.
    """
    edges = edge * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    first, second = integrals(function, edges[:-1], edges[1:]).tolist()
    return first * (first / second) / (1 - first / second) if first < second else torch.inf


@dataclass(frozen=True)
class Refinement:
    """The panels of one round, (n,) each but the edges (n + 1,).

    Attributes:
        low, high: bounds on g over the panel.
        coarse: the integral of g^2 over the panel by one rule.
        halves: the same integral by the rule on both halves; NaN where it was not evaluated.
        settled: whether both conditions of the module docstring hold.
    """

    edges: Tensor
    low: Tensor
    high: Tensor
    coarse: Tensor
    halves: Tensor
    settled: Tensor

    @property
    def width(self) -> Tensor:
        return self.edges[1:] - self.edges[:-1]

    @property
    def middle(self) -> Tensor:
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def best(self) -> Tensor:
        """The integral over each panel, by both halves where they were evaluated."""
        return torch.where(self.halves.isfinite(), self.halves, self.coarse)


@dataclass(frozen=True)
class Quadrature:
    """The search for panels that meet both conditions of the module docstring; ValueError where there are none.

    Attributes:
        function: the diffusion g.
        bounds: maps panels [low, high], (n,) each, to bounds on g.
        T, eps: the panels cover [0, T]; accuracy is measured by the variance at eps.
        name: the diffusion as the user wrote it, for messages.
    """

    function: Diffusion
    bounds: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    T: float
    eps: float
    name: str

    def refused(self, what: str, remedy: str) -> ValueError:
        """Returns the error to raise."""
        return ValueError(f"`diffusion`={self.name}: {what}; {remedy}, for example `diffusion`='1 + 5*t**2'")

    def panels(self) -> Panels:
        """Returns panels that meet both conditions of the module docstring, but for one next to a pole at t = 0."""
        state = self.coarsest()
        for _ in range(DEEPEST):
            state, at_eps = self.judged(state)
            if bool(state.settled[1:].all()):
                rest = self.rest(state, at_eps)
                if rest is not None:
                    break
            state = self.split(state)
        else:
            raise self.refused("its square nearly has no integral from t = 0", "choose a function without a pole")
        best = state.best
        if not bool(state.settled[0]):
            best[0] = rest
        panels = Panels(state.edges, torch.cat([torch.zeros(1, dtype=torch.float64), best.cumsum(0)]))
        self.check_values(panels, best)
        self.check_noise(panels)
        return panels

    def coarsest(self) -> Refinement:
        """Returns ``PANELS`` panels of equal width, none of them settled."""
        edges = torch.linspace(0, self.T, PANELS + 1, dtype=torch.float64)
        settled = torch.zeros(PANELS, dtype=torch.bool)
        low, high = self.bounds(edges[:-1], edges[1:])
        coarse = integrals(self.function, edges[:-1], edges[1:])
        return Refinement(edges, low, high, coarse, torch.full_like(coarse, torch.nan), settled)

    def judged(self, state: Refinement) -> tuple[Refinement, Tensor]:
        """Returns the panels with both conditions tested, and a lower bound on the variance at eps."""
        edges, low, high, coarse, width = state.edges, state.low, state.high, state.coarse, state.width
        if bool((~coarse.isfinite() | (high <= 0)).any()):
            what = f"it must be positive and finite everywhere on (0, `T`={self.T}]"
            raise self.refused(what, "choose another function")
        # lower bounds on the variance at the left edges, and at eps, below which no accuracy is needed
        least, most = low.clamp_min(0), torch.maximum(low.abs(), high.abs())  # of |g|
        certain = torch.cat([width.new_zeros(1), (width * least.square()).cumsum(0)])
        at_eps = certain[int(torch.searchsorted(edges, self.eps, right=True)) - 1]
        so_far = torch.maximum(certain[:-1], at_eps)
        # condition 1: the bounds are close
        reached = edges[:-1].clamp_min(self.eps)
        hidden = most.square() - least.square() > SLACK * torch.maximum(least.square(), so_far / reached)
        hidden &= width * most.square() > NOTHING * at_eps
        # condition 2: the rule has converged
        halves, ask = state.halves.clone(), ~state.settled & ~hidden
        if bool(ask.any()):
            start, middle, end = edges[:-1][ask], state.middle[ask], edges[1:][ask]
            halves[ask] = integrals(self.function, start, middle) + integrals(self.function, middle, end)
        rough = (halves - coarse).abs() > ACCURACY * torch.maximum(so_far, coarse)
        return replace(state, halves=halves, settled=~hidden & ~rough & halves.isfinite()), at_eps

    def rest(self, state: Refinement, at_eps: Tensor) -> float | None:
        """Returns the integral over the first panel where it is not settled, 0 where it is; None if the panels must
        shrink further towards t = 0.
        """
        edge = float(state.edges[1])
        rest = 0.0 if bool(state.settled[0]) else rest_of_series(self.function, edge)
        if rest <= REST * float(at_eps):
            return rest
        if rest == torch.inf and edge < self.eps * 2.0**-40:  # it diverges, and more panels do not help
            raise self.refused("its square has no integral from t = 0", "choose a function without a pole")
        return None

    def split(self, state: Refinement) -> Refinement:
        """Returns the panels with each unsettled one replaced by its halves."""
        edges, width, middle, split = state.edges, state.width, state.middle, ~state.settled
        narrow = split & ((middle <= edges[:-1]) | (middle >= edges[1:]) | (width < edges[:-1] * 2.0**-44))
        if bool(narrow.any()):
            at = float(edges[:-1][narrow][0])
            raise self.refused(
                f"it has a pole, a zero or a jump near t={at:.6g}, where the integral of its square cannot be bounded",
                "choose a smooth, positive function",
            )
        if len(edges) + int(split.sum()) > MOST:
            what = f"{MOST} panels do not follow it, and its kernel would be a guess"
            raise self.refused(what, "choose a function with less detail")
        copies = 1 + split.long()
        starts = torch.repeat_interleave(edges[:-1], copies)
        second = torch.zeros_like(starts, dtype=torch.bool)
        second[copies.cumsum(0)[split] - 1] = True
        starts[second] = middle[split]
        edges = torch.cat([starts, edges[-1:]])
        fresh = torch.repeat_interleave(split, copies)
        low, high, coarse, halves, settled = (
            torch.repeat_interleave(v, copies)
            for v in (state.low, state.high, state.coarse, state.halves, state.settled)
        )
        low[fresh], high[fresh] = self.bounds(edges[:-1][fresh], edges[1:][fresh])
        coarse[fresh] = integrals(self.function, edges[:-1][fresh], edges[1:][fresh])
        halves[fresh] = torch.nan
        return Refinement(edges, low, high, coarse, halves, settled)

    def check_values(self, panels: Panels, best: Tensor) -> None:
        """Refuses a diffusion that is too large, and one that is negative or adds no noise somewhere after eps: without
        noise sigma has no inverse there.

        Arguments:
            best: the integral of g^2 over each panel, (n,).
        """
        edges, cumulative = panels.edges, panels.cumulative
        if not float(cumulative[-1]) < LARGEST**2:
            what = f"sigma(T) = {float(cumulative[-1]) ** 0.5:.3g} must be below {LARGEST:g}"
            raise self.refused(what, "choose a smaller diffusion")
        trusted, width = edges[1:] > self.eps, edges[1:] - edges[:-1]
        typical = (cumulative[1:] / edges[1:]).sqrt()
        values = self.function(edges[:-1, None] + width[:, None] * NODES)
        still = (best / width).sqrt() < STILL * typical
        lost = trusted & ((values < -STILL * typical[:, None]).any(1) | still & (width > 1e-6 * self.T))
        if bool(lost.any()):
            at = float(edges[:-1][lost][0])
            what = f"it must be positive everywhere on (0, `T`={self.T}], and is not beside t={at:.4g}"
            raise self.refused(what, "choose another function")

    def check_noise(self, panels: Panels) -> None:
        """Refuses a diffusion that has added no noise by eps."""
        edges, cumulative = panels.edges, panels.cumulative
        if float(cumulative[int(torch.searchsorted(edges, self.eps, right=True))]) > LEAST**2:
            return
        enough = edges[1:][cumulative[1:] > 1e-12]  # the edges by which sigma has reached 1e-6, to be typed as eps
        what = f"it has added no noise by t=`eps`={self.eps}, and a score there would not be finite"
        if len(enough) and enough[0] < 0.9 * self.T:
            raise ValueError(f"`diffusion`={self.name}: {what}; type `eps`={float(enough[0]):.2g}")
        raise self.refused(what, "choose a larger diffusion")


@lru_cache(maxsize=64)
def panels_of(function: Diffusion, T: float, eps: float, name: str) -> Panels:
    """Returns the panels of :meth:`Quadrature.panels`, from a cache; ValueError where there are none."""
    bounds = function.bounds if isinstance(function, Expression) else sampled_bounds(function, T)
    return Quadrature(function, bounds, T, eps, name).panels()


@dataclass(frozen=True)
class Custom(SDE):
    """dx = g(t) dw for any positive g.

    Arguments:
        diffusion: g, an expression in t or a number, or in Python a callable that maps times of any shape to values of
            that shape; see the module docstring for the assumptions on it.
        T, eps: the interval on which the score is trusted is [eps, T].

    Raises:
        ValueError: the diffusion is no expression, is not positive, is too large, has added no noise by eps, or the
            integral of its square cannot be bounded.
    """

    diffusion: str | float | Callable[[Tensor], Tensor] = "25**t"
    T: float = 1.0
    eps: float = 1e-4

    def __post_init__(self):
        check_interval(self.T, self.eps)
        function = self.diffusion if callable(self.diffusion) else parse(str(self.diffusion))
        panels = panels_of(function, float(self.T), float(self.eps), repr(self.diffusion))
        object.__setattr__(self, "_diffusion", function)
        object.__setattr__(self, "_panels", panels)

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return self._diffusion(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        home = "cpu" if t.device.type == "mps" else t.device  # mps has no float64
        double = t.to(home, torch.float64)
        edges, cumulative = self._panels.edges.to(home), self._panels.cumulative.to(home)
        panel = (torch.searchsorted(edges, double.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        left = edges[panel]
        part = (double - left)[..., None]
        inside = self._diffusion(left[..., None] + part * NODES.to(home)).square()
        variance = cumulative[panel] + (inside * WEIGHTS.to(home)).sum(-1) * part[..., 0]
        return variance.clamp_min(0).sqrt().to(t)
