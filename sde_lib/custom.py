r"""sigma(t) dw for a diffusion of the user's choice, its kernel found by quadrature with a bounded error.

.. math:: dx = g(t)\,dw, \qquad \sigma(t)^2 = \int_0^t g(u)^2\,du

The diffusion is an expression in t, written in the yaml (``sde=custom sde.diffusion='1 + 5*t**2'``; see
:mod:`scoresde.sde_lib.expression`), or in Python any callable of a tensor of times.

The quadrature is Gauss-Legendre of 16 nodes on panels of unequal width. A panel is halved until two conditions hold:

* **Nothing hides between the nodes.** With l <= |g| <= h on a panel of width w, its part of sigma^2 lies in [w l^2, w
  h^2], whatever the nodes see. An expression gives such bounds by interval arithmetic, so that they are rigorous; they
  may differ by :math:`h^2 - l^2 \le \rho\max(l^2, V/t)`, V being the sum of all w l^2 on the left and rho = ``SLACK``.
  So sigma^2 lies within a few per cent of the sum of the bounds, at every t. A callable has no such bounds: its values
  at ``SAMPLES`` irregular places stand for them, and detail narrower than about T / ``SAMPLES`` is not found.
* **The rule has converged.** The panel and its halves give one integral to ``ACCURACY`` of the variance so far.

Panels shrink towards t = 0 by halves, and what is left of an integrable pole there, ``t**-0.4``, is the rest of a
geometric series. A function that needs more than ``MOST`` panels, or a pole elsewhere, is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval
from .expression import Expression, parse
from .quadrature import gauss_legendre

PANELS = 64  # to begin with
MOST = 2**16
DEEPEST = 300  # halvings; panels beside 0 alone can be halved more than some 50 times
NODES, WEIGHTS = gauss_legendre(16)
SLACK = 0.05
NOTHING = 1e-9  # a panel's share of the variance at eps that needs no bound from below
STILL = 1e-12  # of the rms of g up to a time: no noise is added there
LEAST = 1e-18  # of sigma(eps): the square of less has no place in float32
ACCURACY = 1e-11
SAMPLES = 2**16

Diffusion = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Panels:
    """The panels of a quadrature: their edges (n + 1,), and the integral of g^2 from 0 to each edge (n + 1,)."""

    edges: Tensor
    whole: Tensor


def integrals(function: Diffusion, low: Tensor, high: Tensor) -> Tensor:
    """The integrals of g^2 over the panels [low, high], (n,), by one rule each."""
    width = high - low
    return function(low[:, None] + width[:, None] * NODES).square() @ WEIGHTS * width


def sampled_bounds(function: Diffusion, T: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """In place of bounds on a callable's values: the least and the greatest of those at irregular places of each
    panel, its ends included.
    """
    jitter = torch.rand(SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = (torch.arange(SAMPLES, dtype=torch.float64) + jitter) * (T / SAMPLES)
    values = function(places)

    def bounds(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        inside = function(low[:, None] + (high - low)[:, None] * torch.cat([NODES, NODES.new_ones(1)]))
        least, greatest = inside.amin(1), inside.amax(1)
        owner = torch.searchsorted(high.contiguous(), places).clamp_max(len(high) - 1)
        mine = (places >= low[owner]) & (places <= high[owner])  # some panels are settled and not asked about
        least = least.scatter_reduce(0, owner[mine], values[mine], "amin")
        greatest = greatest.scatter_reduce(0, owner[mine], values[mine], "amax")
        lost = inside.isnan().any(1)
        return least.masked_fill(lost, -torch.inf), greatest

    return bounds


def rest_of_series(function: Diffusion, edge: float) -> float:
    """The integral of g^2 from 0 to an edge, if those over [edge, 2 edge], [2 edge, 4 edge] ... are a geometric series,
    as they are for a power of t; infinite where it does not converge.
    """
    edges = edge * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    first, second = integrals(function, edges[:-1], edges[1:]).tolist()
    return first * (first / second) / (1 - first / second) if first < second else torch.inf


@lru_cache(maxsize=64)
def panels_of(function: Diffusion, T: float, eps: float, name: str) -> Panels:
    """Panels that meet both conditions of the module's text; ValueError where there are none."""

    def refuse(what: str, remedy: str) -> ValueError:
        return ValueError(f"`diffusion`={name}: {what}; {remedy}, for example `diffusion`='1 + 5*t**2'")

    bounds = function.bounds if isinstance(function, Expression) else sampled_bounds(function, T)
    edges = torch.linspace(0, T, PANELS + 1, dtype=torch.float64)
    settled = torch.zeros(PANELS, dtype=torch.bool)
    low, high = bounds(edges[:-1], edges[1:])
    found = integrals(function, edges[:-1], edges[1:])
    halves = torch.full_like(found, torch.nan)
    for _ in range(DEEPEST):
        width = edges[1:] - edges[:-1]
        if bool((~found.isfinite() | (high <= 0)).any()):
            raise refuse(f"it must be positive and finite everywhere on (0, T={T}]", "choose another function")
        # what is certain of the variance on the left, and at eps, below which nothing is asked for
        least, most = low.clamp_min(0), torch.maximum(low.abs(), high.abs())  # of |g|
        certain = torch.cat([width.new_zeros(1), (width * least.square()).cumsum(0)])
        at_eps = certain[int(torch.searchsorted(edges, eps, right=True)) - 1]
        so_far = torch.maximum(certain[:-1], at_eps)
        reached = edges[:-1].clamp_min(eps)
        hidden = most.square() - least.square() > SLACK * torch.maximum(least.square(), so_far / reached)
        hidden &= width * most.square() > NOTHING * at_eps
        ask = ~settled & ~hidden
        if bool(ask.any()):
            middle = (edges[:-1] + edges[1:])[ask] / 2
            left, right = integrals(function, edges[:-1][ask], middle), integrals(function, middle, edges[1:][ask])
            halves[ask] = left + right
        rough = (halves - found).abs() > ACCURACY * torch.maximum(so_far, found)
        settled = ~hidden & ~rough & halves.isfinite()
        if bool(settled[1:].all()):
            rest = 0.0 if bool(settled[0]) else rest_of_series(function, float(edges[1]))
            if rest <= 1e-7 * float(at_eps):
                break
            if rest == torch.inf and float(edges[1]) < eps * 2.0**-40:  # it diverges, and more panels are for nothing
                raise refuse("its square has no integral from t = 0", "choose a function without a pole")
        split = ~settled
        middle = (edges[:-1] + edges[1:]) / 2
        narrow = split & ((middle <= edges[:-1]) | (middle >= edges[1:]) | (width < edges[:-1] * 2.0**-44))
        if bool(narrow.any()):
            at = float(edges[:-1][narrow][0])
            raise refuse(
                f"it has a pole, a zero or a jump near t={at:.6g}, where the integral of its square cannot be bounded",
                "choose a smooth, positive function",
            )
        if len(edges) + int(split.sum()) > MOST:
            raise refuse(
                f"{MOST} panels do not follow it, and its kernel would be a guess", "choose a function with less detail"
            )
        # the panels that are split, each replaced by its halves
        copies = 1 + split.long()
        starts = torch.repeat_interleave(edges[:-1], copies)
        second = torch.zeros_like(starts, dtype=torch.bool)
        second[copies.cumsum(0)[split] - 1] = True
        starts[second] = middle[split]
        edges = torch.cat([starts, edges[-1:]])
        fresh = torch.repeat_interleave(split, copies)
        settled, low, high, found, halves = (
            torch.repeat_interleave(v, copies) for v in (settled, low, high, found, halves)
        )
        low[fresh], high[fresh] = bounds(edges[:-1][fresh], edges[1:][fresh])
        found[fresh] = integrals(function, edges[:-1][fresh], edges[1:][fresh])
        halves[fresh] = torch.nan
    else:
        raise refuse("its square nearly has no integral from t = 0", "choose a function without a pole")
    best = torch.where(halves.isfinite(), halves, found)
    if not bool(settled[0]):
        best[0] = rest
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), best.cumsum(0)])
    if not float(whole[-1]) < LARGEST**2:
        raise refuse(
            f"sigma(T) = {float(whole[-1]) ** 0.5:.3g} must be below {LARGEST:g}", "choose a smaller diffusion"
        )
    # where it adds no noise, or changes its sign, sigma would have no inverse
    trusted, width = edges[1:] > eps, edges[1:] - edges[:-1]
    typical = (whole[1:] / edges[1:]).sqrt()
    values = function(edges[:-1, None] + width[:, None] * NODES)
    still = (best / width).sqrt() < STILL * typical
    lost = trusted & ((values < -STILL * typical[:, None]).any(1) | still & (width > 1e-6 * T))
    if bool(lost.any()):
        at = float(edges[:-1][lost][0])
        raise refuse(
            f"it must be positive everywhere on (0, T={T}], and is not beside t={at:.4g}", "choose another function"
        )
    enough = edges[1:][whole[1:] > 1e-12]
    if not float(whole[int(torch.searchsorted(edges, eps, right=True))]) > LEAST**2:
        what = f"it has added no noise by t=sde.eps={eps}, and a score there would not be finite"
        if len(enough) and enough[0] < 0.9 * T:
            raise ValueError(f"`diffusion`={name}: {what}; type `eps`={float(enough[0]):.2g}")
        raise refuse(what, "choose a larger diffusion")
    return Panels(edges, whole)


@dataclass(frozen=True)
class Custom(SDE):
    """dx = g(t) dw for any positive g.

    Arguments:
        diffusion: g, an expression in t or a number, or in Python a callable that maps times of any shape to values of
            that shape; see the module's text for what is assumed of it.
        T, eps: the interval on which the score is trusted is [eps, T].

    Raises:
        ValueError: no expression, not positive, or no integral of its square that can be bounded.
    """

    diffusion: str | float | Callable[[Tensor], Tensor] = "25**t"
    T: float = 1.0
    eps: float = 1e-4

    def __post_init__(self):
        check_interval("sde=custom", self.T, self.eps)
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
        edges, whole = self._panels.edges.to(home), self._panels.whole.to(home)
        panel = (torch.searchsorted(edges, double.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        left = edges[panel]
        part = (double - left)[..., None]
        inside = self._diffusion(left[..., None] + part * NODES.to(home)).square()
        variance = whole[panel] + (inside * WEIGHTS.to(home)).sum(-1) * part[..., 0]
        return variance.clamp_min(0).sqrt().to(t)
