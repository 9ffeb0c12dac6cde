r"""sigma(t) dw for a diffusion of the user's choice, its kernel found by quadrature.

.. math:: dx = g(t)\,dw, \qquad \sigma(t)^2 = \int_0^t g(u)^2\,du

The diffusion is an expression in t, written in the yaml: ``sde=custom sde.diffusion='1 + 5*t**2'``. It is parsed, never
executed as code: numbers, t, + - * / **, and the functions of ``FUNCTIONS`` are all that it may hold. In Python any
callable of a tensor of times does.

The quadrature is Gauss-Legendre on panels of equal width: whole panels are summed once, and the panel that t falls
in is integrated from its left edge to t, so that sigma is a smooth function of t and accurate to rounding for a
smooth g.
"""

import ast
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval
from .quadrature import gauss_legendre

PANELS = 64
NODES, WEIGHTS = gauss_legendre(16)

FUNCTIONS = {
    name: getattr(torch, name)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "sinh", "cosh", "sigmoid", "abs")
}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@lru_cache(maxsize=64)
def parse(expression: str) -> Callable[[Tensor], Tensor]:
    """The function of t that an expression names, for example ``'25**t'`` or ``'0.1 + sqrt(t)'``; ValueError if it
    names none.
    """

    def refuse(what: str) -> ValueError:
        return ValueError(
            f"sde.diffusion={expression!r}: {what}; use numbers, t, + - * / **, and {', '.join(FUNCTIONS)}, "
            f"for example sde.diffusion='1 + 5*t**2'"
        )

    def evaluate(node: ast.expr, t: Tensor) -> Tensor | float:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return torch.as_tensor(float(value), dtype=t.dtype, device=t.device)
            case ast.Name(id="t"):
                return t
            case ast.Name(id="pi"):
                return torch.as_tensor(math.pi, dtype=t.dtype, device=t.device)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](evaluate(operand, t))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](evaluate(left, t), evaluate(right, t))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](evaluate(argument, t))
            case _:
                raise refuse(f"cannot read {ast.unparse(node)!r}")

    try:
        body = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise refuse("not an expression") from None
    evaluate(body, torch.zeros(1))  # names what cannot be read now, not in the middle of a run
    return lambda t: evaluate(body, t).expand(t.shape)


@dataclass(frozen=True)
class Custom(SDE):
    """dx = g(t) dw for any positive g.

    Arguments:
        diffusion: g, an expression in t or a number, or in Python a callable that maps times of any shape to values of
            that shape.
        T, eps: the interval on which the score is trusted is [eps, T].
    """

    diffusion: str | float | Callable[[Tensor], Tensor] = "25**t"
    T: float = 1.0
    eps: float = 1e-4

    def __post_init__(self):
        check_interval("sde=custom", self.T, self.eps)
        function = self.diffusion if callable(self.diffusion) else parse(str(self.diffusion))
        edges = torch.linspace(0, self.T, PANELS + 1, dtype=torch.float64)
        object.__setattr__(self, "_diffusion", function)
        inside = function(edges[:-1, None] + self.T / PANELS * NODES)
        if not bool((torch.isfinite(inside) & (inside > 0)).all()):
            raise ValueError(
                f"sde.diffusion={self.diffusion!r} must be positive and finite everywhere on (0, T={self.T}]"
            )
        panels = inside.square() @ WEIGHTS * self.T / PANELS
        starts = torch.linspace(0, self.T, 2 * PANELS + 1, dtype=torch.float64)[:-1, None]
        halves = function(starts + self.T / (2 * PANELS) * NODES).square() @ WEIGHTS * self.T / (2 * PANELS)
        # A pole shows in that no panel's halves sum to the whole: its square has no integral, or none that these
        # nodes find.
        if float((halves.reshape(-1, 2).sum(1) - panels).abs().sum()) > 1e-4 * float(panels.sum()):
            raise ValueError(
                f"sde.diffusion={self.diffusion!r}: its square has no integral from 0 to sde.T={self.T}, or one too "
                f"rough to find; choose a function without a pole, for example sde.diffusion='1 + 5*t**2'"
            )
        if not float(panels.sum()) < LARGEST**2:
            raise ValueError(
                f"sde.diffusion={self.diffusion!r}: sigma(T) = {float(panels.sum()) ** 0.5:.3g} must be below "
                f"{LARGEST:g}; choose a smaller diffusion, for example sde.diffusion='1 + 5*t**2'"
            )
        object.__setattr__(self, "_whole", torch.cat([torch.zeros(1, dtype=torch.float64), panels.cumsum(0)]))

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return self._diffusion(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        home = "cpu" if t.device.type == "mps" else t.device  # mps has no float64
        double = t.to(home, torch.float64)
        panel = (double * (PANELS / self.T)).long().clamp(0, PANELS - 1)
        left = panel * (self.T / PANELS)
        part = (double - left)[..., None]
        inside = self._diffusion(left[..., None] + part * NODES.to(home)).square()
        variance = self._whole.to(home)[panel] + (inside * WEIGHTS.to(home)).sum(-1) * part[..., 0]
        return variance.clamp_min(0).sqrt().to(t)
