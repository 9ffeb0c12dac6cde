r"""Linear SDEs that perturb data, and their reversal.

The forward process on [0, T] carries data (t = 0) to noise (t = T),

.. math:: dx = f(t)\,x\,dt + g(t)\,dw,

(Song et al. 2021, arXiv 2011.13456, eq. 5), and since it is linear its kernels are Gaussian:

.. math::
    x_t \mid x_0 &\sim N(\alpha(t)\,x_0,\ \sigma(t)^2 I), \\
    x_t \mid x_s &\sim N(a\,x_s,\ b^2 I), \qquad a = \alpha(t)/\alpha(s), \quad b^2 = \sigma(t)^2 - a^2\sigma(s)^2 .

The four functions determine each other, :math:`f = \alpha'/\alpha` and :math:`g^2 = (\sigma^2)' - 2 f \sigma^2`.
With the half log signal-to-noise ratio :math:`\lambda = \log(\alpha/\sigma)`, which falls in t, the transition's
variance is :math:`b^2 = \sigma(t)^2\,(1 - e^{2(\lambda(t) - \lambda(s))})`, free of cancellation through ``expm1``.

With the score :math:`\nabla_x \log p_t(x)` the process runs backwards (eq. 6 there, and eq. 13 for eta = 0),

.. math:: dx = \bigl[f x - \tfrac{1 + \eta^2}{2} g^2 \nabla_x \log p_t(x)\bigr] dt + \eta\,g\,d\bar w .

eta = 1 is the reverse-time SDE, eta = 0 the probability-flow ODE, and all of them share the marginals p_t.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

LARGEST = 1e6
"""The largest noise that VE, EDM and Custom admit, for data of unit size: float32 keeps one digit of the data there."""

ScoreFn = Callable[[Tensor, Tensor], Tensor]
"""A score: maps x (B, *) and t (B,) to the gradient of log p_t at x, of x's shape."""


def times_of(t: Tensor | float, x: Tensor) -> Tensor:
    """Returns the time of each sample of x (B, *), (B,): a number or a tensor () is that of all samples."""
    if isinstance(t, Tensor) and t.ndim:
        return t
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))


def takes_numbers(method: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor | float], Tensor]:
    """Returns a method of one tensor that takes a plain number too, as a tensor () of float64."""

    @wraps(method)
    def of_any(self: Any, t: Tensor | float) -> Tensor:
        return method(self, t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64))

    return of_any


def per_sample(t: Tensor | float, x: Tensor) -> Tensor:
    """Views one value a sample, shape (B,), as (B, 1, ..., 1), so that it broadcasts over x of shape (B, *); a number
    or a tensor () is the value of all samples.
    """
    t = times_of(t, x)
    if t.shape != x.shape[:1]:
        raise ValueError(f"one time a sample is needed: x has shape {tuple(x.shape)}, the times {tuple(t.shape)}")
    return t.reshape(-1, *[1] * (x.ndim - 1))


class SDE(ABC):
    """dx = f(t) x dt + g(t) dw on [0, T], with x_t | x_0 ~ N(alpha(t) x_0, sigma(t)^2 I).

    A concrete SDE is a frozen dataclass with the fields ``T`` and ``eps``: its score is trusted on [eps, T], and
    everything that runs backwards stops at eps. f, g, alpha and sigma take t of any shape and keep its shape and dtype;
    a plain number is taken as a tensor () of float64.
    """

    T: float
    eps: float
    counts_steps: ClassVar[bool] = False
    """True if time counts the steps of a discrete chain, with which the SDE agrees at whole times."""

    def __init_subclass__(cls, **keys: Any):
        super().__init_subclass__(**keys)
        for name in ("f", "g", "alpha", "sigma", "half_log_snr", "time"):
            if name in vars(cls):
                setattr(cls, name, takes_numbers(vars(cls)[name]))

    @abstractmethod
    def f(self, t: Tensor | float) -> Tensor:
        """The drift's factor: the drift is f(t) x."""

    @abstractmethod
    def g(self, t: Tensor | float) -> Tensor:
        """The diffusion."""

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """The factor of the kernel's mean."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """The standard deviation of the kernel."""

    @takes_numbers
    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """lambda(t) = log(alpha(t) / sigma(t)), strictly falling in t."""
        return self.alpha(t).log() - self.sigma(t).log()

    @takes_numbers
    def time(self, half_log_snr: Tensor | float) -> Tensor:
        """Returns the t with this lambda(t), the inverse of :meth:`half_log_snr`; here by bisection in [0, T]."""
        low = torch.zeros_like(half_log_snr)
        high = torch.full_like(half_log_snr, self.T)
        for _ in range(64 if half_log_snr.dtype == torch.float64 else 32):
            middle = (low + high) / 2
            noisier = self.half_log_snr(middle) < half_log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2

    def ends(self, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns lambda(T) and lambda(eps), the noisiest and the cleanest level, with the dtype and device of
        ``like``, or in float64.
        """
        times = torch.tensor([self.T, self.eps], dtype=torch.float64)
        start, stop = self.half_log_snr(times if like is None else times.to(like)).unbind()
        return start, stop

    def time_of(self, noise_to_signal: float, key: str) -> float:
        """Returns the t in [eps, T] at which sigma/alpha has this value; ValueError names ``key`` if there is none."""
        start, stop = self.ends()
        level = torch.tensor(-math.log(noise_to_signal), dtype=torch.float64)
        # the tolerance admits levels copied from a message
        if not float(start) - 1e-4 <= float(level) <= float(stop) + 1e-4:
            low, high = math.exp(-float(stop)), math.exp(-float(start))
            raise ValueError(
                f"{key}={noise_to_signal} lies outside the SDE's levels, {low:.4g} to {high:.4g}; type "
                f"{key}={math.sqrt(low * high):.2g}, or choose an SDE that reaches it"
            )
        return float(self.time(level).clamp(self.eps, self.T))

    def reaching(self, noise_to_signal: float) -> str | None:
        """Returns what to type, ``sde.eps=`` and a time rounded down, to lower sigma/alpha at eps to this value; None
        where sigma/alpha is not below it even at t = 0.
        """
        level = torch.tensor(-math.log(noise_to_signal), dtype=torch.float64)
        if float(self.half_log_snr(torch.zeros_like(level))) <= float(level):
            return None
        return f"sde.eps={rounded_down(float(self.time(level)))}"

    def ending(self, noise_to_signal: float) -> str | None:
        """Returns what to type, ``sde.T=`` and a longer time, to raise sigma/alpha at T to at least this value; None
        where none of a few multiples of T does it, of which the first invalid one ends the search.
        """
        for factor in (1.5, 2, 3, 4, 6, 8, 12, 16):
            try:
                longer = replace(self, T=factor * self.T)
            except ValueError:
                break
            if math.exp(-float(longer.ends()[0])) >= noise_to_signal:
                return f"sde.T={longer.T:g}"
        return None

    def even(self, share: Tensor) -> Tensor:
        """Returns the times at shares in [0, 1] of the interval from T to eps: even in t, unless overridden."""
        return self.T + (self.eps - self.T) * share

    def perturb(self, x_0: Tensor, t: Tensor | float, z: Tensor) -> Tensor:
        """Returns x_t = alpha(t) x_0 + sigma(t) z, (B, *), for x_0 and standard normal z (B, *), and t (B,) or a
        number.
        """
        t = times_of(t, x_0)
        return per_sample(self.alpha(t), x_0) * x_0 + per_sample(self.sigma(t), x_0) * z

    def transition(self, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Returns a and b of x_t | x_s ~ N(a x_s, b^2 I) for s <= t, in the shape of the times."""
        a = self.alpha(t) / self.alpha(s)
        b = self.sigma(t) * torch.expm1(2 * (self.half_log_snr(t) - self.half_log_snr(s))).neg().sqrt()
        return a, b

    @property
    def prior_std(self) -> float:
        """sigma(T): the reverse process starts from N(0, sigma(T)^2 I)."""
        return float(self.sigma(torch.tensor(self.T, dtype=torch.float64)))

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Returns log N(z; 0, sigma(T)^2 I) in nats, (B,), for z (B, *)."""
        std = self.prior_std
        z = z.flatten(1)
        return -0.5 * (z / std).square().sum(1) - z.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))

    def reverse(self, score: ScoreFn, eta: float = 1.0) -> "ReverseSDE":
        """Returns the process backwards in time: for eta = 1 the reverse SDE, for eta = 0 the probability-flow ODE."""
        return ReverseSDE(self, score, eta)

    def denoise(self, score: ScoreFn, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns the posterior mean E[x_0 | x_t = x] = (x + sigma(t)^2 score) / alpha(t), Tweedie's formula (Efron
        2011).

        The mean is exact for the exact score; its law is not that of x_0. On Gaussian data of std s it has the std
        s / sqrt(1 + r), r = (sigma/(alpha s))^2.
        """
        return self._towards_data(1.0, score, x, t)

    def flow_to_data(self, score: ScoreFn, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns (x + sigma(t)^2 score / 2) / alpha(t): one Euler step of the probability flow from t to 0, in the
        variable (sigma/alpha)^2.

        Its law is that of x_0 up to terms of order (sigma/alpha)^4: on Gaussian data of std s it has the std
        s (1 + r/2) / sqrt(1 + r) = s (1 + r^2/8 - ...), r = (sigma/(alpha s))^2.
        """
        return self._towards_data(0.5, score, x, t)

    def _towards_data(self, share: float, score: ScoreFn, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns (x + share sigma(t)^2 score) / alpha(t), shapes (B, *) and (B,) to (B, *)."""
        t = times_of(t, x)
        variance, alpha = per_sample(share * self.sigma(t).square(), x), per_sample(self.alpha(t), x)
        return (x + variance * score(x, t)) / alpha


@dataclass(frozen=True)
class ReverseSDE:
    """dx = [f x - (1 + eta^2)/2 g^2 score] dt + eta g dw, to be run from T down to eps."""

    sde: SDE
    score: ScoreFn
    eta: float = 1.0

    def drift(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The drift at x of shape (B, *) and t of shape (B,) or a number, of x's shape."""
        t = times_of(t, x)
        f = per_sample(self.sde.f(t), x).to(x.dtype)
        half_g2 = per_sample(self.sde.g(t).square() * (-0.5 * (1 + self.eta**2)), x).to(x.dtype)
        return torch.addcmul(f * x, half_g2, self.score(x, t))

    def diffusion(self, t: Tensor | float) -> Tensor:
        """eta g(t), in the shape of t."""
        return self.eta * self.sde.g(t)


def rounded_down(value: float) -> str:
    """Returns the text of a positive number, rounded down to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.floor(value / unit * (1 + 1e-12)) * unit:.2g}"


def check_interval(T: float, eps: float) -> None:
    """Raises a ValueError unless 0 < eps < T and T is finite: at t = 0 most kernels have no noise and no score."""
    if not (math.isfinite(T) and T > 0):
        raise ValueError(f"`T`={T} must be positive and finite; the SDEs of arXiv 2011.13456 run to `T`=1")
    if not 0 < eps < T:
        raise ValueError(f"`eps`={eps} must lie between 0 and `T`={T}; type for example `eps`=1e-5")
