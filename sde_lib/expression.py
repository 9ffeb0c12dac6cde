r"""A function of t written by the user, with its values and bounds on them over intervals.

An expression is parsed and never executed as code: it may hold numbers, t, pi, + - * / **, parentheses and the
functions in ``FUNCTIONS``. The same tree is evaluated in two arithmetics:

* that of tensors of times, which gives the function's values;
* that of intervals (Moore, Interval Analysis, 1966): every operation maps bounds on its operands to bounds on its
  result, so that :meth:`Expression.bounds` encloses all values on [low, high]. If t occurs more than once, the bounds
  may be wider than the range of values. They tend to it as the interval shrinks, unless an intermediate value is
  infinite there. They ignore the rounding of each operation, a share of 1e-16.
"""

import ast
import math
import operator
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

Interval = tuple[Tensor, Tensor]
"""The lower and the upper bounds of n sets of numbers, each of shape (n,)."""

INFINITY = math.inf


def increasing(function: Callable[[Tensor], Tensor]) -> Callable[[Interval], Interval]:
    """Returns the interval arithmetic of an increasing function."""
    return lambda x: (function(x[0]), function(x[1]))


def magnitude(x: Interval) -> Interval:
    """Returns bounds on |x|."""
    low, high = x
    ends = torch.maximum(low.abs(), high.abs())
    return torch.where((low < 0) & (high > 0), torch.zeros_like(ends), torch.minimum(low.abs(), high.abs())), ends


def cosine(x: Interval) -> Interval:
    """Returns bounds on cos: 1 if the interval holds a multiple of 2 pi, -1 if it holds an odd multiple of pi."""
    low, high = x
    ends = torch.cos(low), torch.cos(high)
    lowest, highest = (torch.floor((high - shift) / (2 * math.pi)) >= torch.ceil((low - shift) / (2 * math.pi))
                       for shift in (math.pi, 0.0))  # fmt: skip
    unknown = ~(low.isfinite() & high.isfinite())
    return (
        torch.where(lowest | unknown, -1.0, torch.minimum(*ends)),
        torch.where(highest | unknown, 1.0, torch.maximum(*ends)),
    )


def sine(x: Interval) -> Interval:
    return cosine((x[0] - math.pi / 2, x[1] - math.pi / 2))


def hyperbolic_cosine(x: Interval) -> Interval:
    return increasing(torch.cosh)(magnitude(x))


def logarithm(x: Interval) -> Interval:
    low, high = (torch.where(v > 0, v.log(), -INFINITY) for v in x)
    return low, high


def square_root(x: Interval) -> Interval:
    """Returns bounds on the root, the lower one minus infinity where x may be negative and the root undefined."""
    low, high = x
    return torch.where(low >= 0, low.clamp_min(0).sqrt(), -INFINITY), high.clamp_min(0).sqrt()


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Interval], Interval]]] = {
    "exp": (torch.exp, increasing(torch.exp)),
    "log": (torch.log, logarithm),
    "sqrt": (torch.sqrt, square_root),
    "sin": (torch.sin, sine),
    "cos": (torch.cos, cosine),
    "tanh": (torch.tanh, increasing(torch.tanh)),
    "sinh": (torch.sinh, increasing(torch.sinh)),
    "cosh": (torch.cosh, hyperbolic_cosine),
    "sigmoid": (torch.sigmoid, increasing(torch.sigmoid)),
    "abs": (torch.abs, magnitude),
}


def hull(candidates: list[Tensor]) -> Interval:
    """Returns the interval from the least to the greatest candidate, all (n,); NaN, as of 0 times infinity, makes it
    infinite.
    """
    stacked = torch.stack(candidates)
    lost = stacked.isnan().any(0)
    low, high = stacked.nan_to_num(nan=0.0, posinf=INFINITY, neginf=-INFINITY).aminmax(dim=0)
    return torch.where(lost, -INFINITY, low), torch.where(lost, INFINITY, high)


def product(a: Interval, b: Interval) -> Interval:
    return hull([x * y for x in a for y in b])


def quotient(a: Interval, b: Interval) -> Interval:
    low, high = b
    inverse = torch.where(high == 0, -INFINITY, 1 / high), torch.where(low == 0, INFINITY, 1 / low)
    pole = (low < 0) & (high > 0)
    inverse = torch.where(pole, -INFINITY, inverse[0]), torch.where(pole, INFINITY, inverse[1])
    return product(a, inverse)


def power(a: Interval, b: Interval) -> Interval:
    """Returns bounds on x ** y: for constant whole y at any x, and for other y at x >= 0 as exp(y log x)."""
    exponent = b[0]
    if bool(((b[0] == b[1]) & (exponent == exponent.round())).all()):  # one whole number for each interval
        even = exponent.remainder(2) == 0
        size = magnitude(a)
        positive = exponent >= 0
        of_size = tuple(torch.where(positive, x**exponent, y**exponent) for x, y in (size, size[::-1]))
        of_ends = tuple(v**exponent for v in a)
        crosses = (a[0] < 0) & (a[1] >= 0)
        odd = tuple(torch.where(positive, x, y) for x, y in (of_ends, of_ends[::-1]))
        odd = torch.where(~positive & crosses, -INFINITY, odd[0]), torch.where(~positive & crosses, INFINITY, odd[1])
        return torch.where(even, of_size[0], odd[0]), torch.where(even, of_size[1], odd[1])
    low, high = increasing(torch.exp)(product(b, logarithm(a)))
    zero = (a[0] == 0) & (b[0] > 0)  # 0 ** y = 0; for unbounded y the product of y and [log 0, log 1] is undefined
    low = torch.where(zero, 0.0, low)
    high = torch.where(zero & (a[1] <= 1), torch.maximum(a[1] ** b[0], a[1] ** b[1]), high)
    return torch.where(a[0] < 0, -INFINITY, low), high


OPERATORS: dict[type, tuple[Callable, Callable]] = {
    ast.Add: (operator.add, lambda a, b: (a[0] + b[0], a[1] + b[1])),
    ast.Sub: (operator.sub, lambda a, b: (a[0] - b[1], a[1] - b[0])),
    ast.Mult: (operator.mul, product),
    ast.Div: (operator.truediv, quotient),
    ast.Pow: (operator.pow, power),
    ast.USub: (operator.neg, lambda a: (-a[1], -a[0])),
    ast.UAdd: (operator.pos, lambda a: a),
}


class Expression:
    """The function of t given by a text, for example ``'25**t'`` or ``'0.1 + sqrt(t)'``; ValueError for other texts.

    Arguments:
        text: the expression.
    """

    def __init__(self, text: str):
        self.text = text
        try:
            self.body = ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError):
            raise self.refuse("not an expression") from None
        try:
            self(torch.zeros(1))  # raises for unknown names now, not during a run
        except OverflowError:
            raise self.refuse("a number beyond 1e308") from None
        except RecursionError:
            raise self.refuse("an expression of too many operations") from None

    def refuse(self, what: str) -> ValueError:
        return ValueError(
            f"`diffusion`={self.text!r}: {what}; use numbers, t, + - * / **, and {', '.join(FUNCTIONS)}, "
            f"for example `diffusion`='1 + 5*t**2'"
        )

    def __call__(self, t: Tensor) -> Tensor:
        """Returns the values at times of any shape, with their shape and dtype."""
        return self.evaluate(self.body, t, 0, lambda value: torch.as_tensor(value, dtype=t.dtype, device=t.device)
                             ).expand(t.shape)  # fmt: skip

    def bounds(self, low: Tensor, high: Tensor) -> Interval:
        """Returns bounds on the values over the intervals [low, high], (n,) each; infinite where there are none."""
        interval = self.evaluate(self.body, (low, high), 1, lambda value: (torch.full_like(low, value),) * 2)
        return hull(list(interval))  # infinite instead of NaN

    def evaluate(self, node: ast.expr, t, arithmetic: int, number: Callable):
        """Returns the value of a node in the arithmetic of tensors (0) or of intervals (1).

        Arguments:
            t: the times, a tensor or an :data:`Interval`.
            number: maps a float to the same constant in that arithmetic.

        Raises:
            ValueError: the node is none that an expression may hold.
        """
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return number(float(value))
            case ast.Name(id="t"):
                return t
            case ast.Name(id="pi"):
                return number(math.pi)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)][arithmetic](self.evaluate(operand, t, arithmetic, number))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                sides = (self.evaluate(side, t, arithmetic, number) for side in (left, right))
                return OPERATORS[type(op)][arithmetic](*sides)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name][arithmetic](self.evaluate(argument, t, arithmetic, number))
            case _:
                raise self.refuse(f"cannot read {ast.unparse(node)!r}")


@lru_cache(maxsize=64)
def parse(text: str) -> Expression:
    """Returns the expression of a text, from a cache; ValueError as for :class:`Expression`."""
    return Expression(text)
