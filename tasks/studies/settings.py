"""The settings at which a solver is run when work is compared with precision.

A solver with steps gets as many as each budget of evaluations allows, and no setting for a budget below one step. Its
evaluations are affine in its steps, those of Restart nearly, so two short runs on a few samples give both coefficients.
A solver with tolerances gets every tolerance, from loose to tight, until one costs more than the largest budget; the
first is always taken. A solver with neither gets one setting.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from scoresde.sde_lib import Counted


@dataclass(frozen=True)
class Setting:
    """A solver at one of its settings.

    Attributes:
        method: the solver's name.
        what, value: ``steps`` or ``tolerance``, and its value; an empty word and NaN for a solver that has neither.
        solver: the solver with this value.
        nfe: the expected number of evaluations per sample.
    """

    method: str
    what: str
    value: float
    solver: Any
    nfe: float


class TooExpensive(Exception):
    """A solver has exceeded its budget of evaluations."""


def stop_at(evaluations: float, counted: Counted) -> Callable[[float], None]:
    """Returns an ``on_step`` for a solver, which raises TooExpensive once the score has more than ``evaluations``."""

    def on_step(share: float) -> None:
        if counted.evaluations > evaluations:
            raise TooExpensive

    return on_step


def settings(
    method: str, solver: Any, cost: Callable[[Any, float], float], budgets: list[int], tolerances: list[float]
) -> list[Setting]:
    """Returns the settings of one solver, by rising steps or by falling tolerance.

    Arguments:
        method: the solver's name.
        solver: a sampler or a likelihood.
        cost: maps (solver, most) to evaluations per sample; raises TooExpensive beyond ``most``.
        budgets: evaluations per sample.
        tolerances: relative tolerances; see :func:`with_tolerance` for the absolute ones.
    """
    loose_to_tight = [with_tolerance(solver, tolerance) for tolerance in sorted(tolerances, reverse=True)]
    if hasattr(solver, "steps"):
        few, more = (cost(replace(loose_to_tight[0], steps=steps), math.inf) for steps in (4, 8))
        if more > few:  # else the solver's method does not use its key steps
            a_step, once = (more - few) / 4, 2 * few - more
            counts = sorted({int((budget - once) / a_step) for budget in budgets})
            return [
                Setting(method, "steps", steps, replace(solver, steps=steps), once + steps * a_step)
                for steps in counts
                if steps >= 1
            ]
    if not hasattr(solver, "rtol"):
        return [Setting(method, "", math.nan, solver, cost(solver, math.inf))]
    found = []
    for tight in loose_to_tight:
        try:
            nfe = cost(tight, max(budgets) if found else math.inf)
        except TooExpensive:
            break
        found.append(Setting(method, "tolerance", tight.rtol, tight, nfe))
    return found


def with_tolerance(solver: Any, tolerance: float) -> Any:
    """Returns the solver with another relative tolerance, if it has one. The absolute tolerance keeps its proportion to
    it, and is equal to it if either was None.
    """
    if not hasattr(solver, "rtol"):
        return solver
    ratio = 1.0 if None in (solver.rtol, solver.atol) else solver.atol / solver.rtol
    return replace(solver, rtol=tolerance, atol=tolerance * ratio)
