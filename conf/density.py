"""Checks whether data have a density, and whether their conditions y tell a network anything.

Data that do not vary in some direction are refused to a task that reports a density, and values that repeat are warned
of; other tasks are warned of both. Integers (``data.levels``) are not checked: dequantisation gives them a density.
:mod:`scoresde.data.repeats` finds the values that repeat; this module puts them into words.
"""

import logging
import math
from typing import Any

import torch

from scoresde.data import Data, repeats
from scoresde.data.repeats import Repeats

log = logging.getLogger(__name__)

SHOWN = 3  # the most columns that a message describes one by one
NAMED = 20  # a message lists more columns to keep in data.key= only where data.condition= cannot be typed
FEW = 10  # with fewer rows to train on, a column may be constant by chance


def check(task: Any, sde: Any, data: Data) -> dict[str, float]:
    """Refuses or warns of data without a density, and returns the metrics of values that repeat.

    A task that reports a density (``task.reports_density``) is refused data that do not vary in some direction, and
    warned of values that repeat. Other tasks are warned of both, if the data come from a file: generated data without a
    density are so by design.

    Returns:
        for a task that reports a density, of data whose values repeat: ``repeated_share``, the share of the examples
        that have a repeated value or, if it is larger, that equal another row, and, if examples have enough such
        values, ``repeated_nats_per_decade``, by how much a tenfold smaller noise at eps lowers the negative
        log-likelihood. An empty dict otherwise.

    Raises:
        ValueError: the task reports a density, and the data do not vary in some direction.
    """
    asked = getattr(task, "reports_density", False)
    if data.levels is not None or not len(data.train) or not asked and data.fingerprint() is None:
        return {}
    blur = math.exp(-float(sde.ends()[1]))  # the std of the noise at eps, in model units
    found = repeats.measure(data, blur)
    if not found.any:
        return {}
    said, remedy = "; ".join(described(found, data)), remedies(found, data)

    # data that do not vary in some direction
    if found.degenerate:
        few = f" ({len(data.train)} rows to train on are few: more may vary)" if len(data.train) < FEW else ""
        if asked:
            raise ValueError(f"{said}{few}: these data have no density, and this task reports one. {remedy}")
        log.warning(
            "%s%s: these data have no density, which task=likelihood refuses, and samples vary there by the noise of "
            "sde.eps=%s only. %s",
            said,
            few,
            sde.eps,
            remedy,
        )
        return {}

    # values that repeat; a pixel of tiny variance has a density, which the noise covers
    unseen = all(found.still[j] for j in found.repeated) and found.copies < repeats.LEAST
    verdict = "the noise hides the density of these data" if unseen else "these data have no density"
    if not asked:
        end = "a network may learn them by heart"
        if bool(found.still.any()):
            end = f"samples vary there by the noise of sde.eps={sde.eps} only"
        elif found.repeated:
            end = "samples lie between such values"
        log.warning("%s: %s, and %s. %s", said, verdict, end, remedy)
        return {}
    decade = math.log(10) * found.per_row
    depth = f", about {decade:.2g} nats lower for a tenfold smaller noise" if found.per_row >= repeats.LEAST else ""
    log.warning(
        "%s: %s. The NLL is as low as the noise of sde.eps=%s lets it be (%.3g in model "
        "units)%s, and no error bar covers that. %s",
        said,
        verdict,
        sde.eps,
        blur,
        depth,
        remedy,
    )
    return {"repeated_share": found.rows} | ({"repeated_nats_per_decade": decade} if depth else {})


def constant_conditions(data: Data) -> None:
    """Warns of numbers y that are the same in every training example, and of classes without a training example."""
    condition = data.condition
    if condition is None or not len(condition.train):
        return
    if condition.classes:
        unseen = [condition.names[k] for k in sorted(set(condition.test.tolist()) - set(condition.train.tolist()))]
        if unseen:
            held_out = int((~torch.isin(condition.test, condition.train)).sum())
            shown = ", ".join(unseen[:SHOWN]) + (", ..." if len(unseen) > SHOWN else "")
            log.warning(
                "data.condition=labels: %s (%s) %s no training example, and %d held-out one%s: no network learns what "
                "is measured of these. Leave them out, or choose another data.seed",
                f"{len(unseen)} classes" if len(unseen) > 1 else "1 class",
                shown,
                "have" if len(unseen) > 1 else "has",
                held_out,
                "s" if held_out > 1 else "",
            )
        return
    same = (condition.train.amin(0) == condition.train.amax(0)).tolist()
    names = [
        f"{name} ({show(v)})"
        for name, v, is_same in zip(condition.names, condition.train[0].tolist(), same, strict=True)
        if is_same
    ]
    if names:
        log.warning(
            "data.condition: %s %s constant in the training part and %s nothing",
            ", ".join(names),
            "are" if len(names) > 1 else "is",
            "tell" if len(names) > 1 else "tells",
        )


def described(found: Repeats, data: Data) -> list[str]:
    """Returns the clauses that say what repeats: constants, linear combinations, repeated values, equal rows."""
    clauses = []
    kind = "columns" if len(data.shape) == 1 else "pixels"
    constant = found.constant.nonzero()[:, 0].tolist()
    channels, pixels = full_channels(found, data), data.dim // data.shape[0]
    clauses += [f"every pixel of channel {c} is constant in the training part" for c in channels]
    if rest := [j for j in constant if j // pixels not in channels]:
        named = [f"{place(data, j)} ({show(found.value[j])})" for j in rest]
        clauses.append(counted(named, data.dim, kind, "constant in the training part"))
    if found.follows:
        j, others = next(iter(found.follows.items()))
        words = [place(data, column) for column in others[:SHOWN]]
        words += [f"{len(others) - SHOWN} others"] if len(others) > SHOWN else []
        first = f"{place(data, j)} is a linear combination of {' and '.join(words) or 'the condition'}"
        more = len(found.follows) - 1
        clauses.append(first + (f", and {more} more {kind} are combinations too" if more else ""))
    repeated = [j for j in found.repeated if j not in found.follows]
    if repeated and found.grid is not None and found.grid.whole:
        low, high = min(found.grid.low), min(found.grid.low) + found.grid.levels - 1
        clauses.append(
            f"{percent(found.rows)} of the examples hold values that repeat: all {kind} hold whole numbers, {low:g} "
            f"... {high:g}"
        )
    elif repeated:
        most = sorted(repeated, key=lambda j: -float(found.share[j]))
        if len(repeated) > SHOWN:
            clauses.append(f"{len(repeated)} of {data.dim} {kind} hold values that repeat")
        clauses.append(", ".join(of_one(found, data, j) for j in most[: 1 if len(repeated) > SHOWN else SHOWN]))
    if found.copies >= repeats.LEAST:
        clauses.append(f"{percent(found.copies)} of the rows equal another row")
    return clauses


def of_one(found: Repeats, data: Data, j: int) -> str:
    """Returns what repeats in one column."""
    name, share = place(data, j), float(found.share[j])
    if bool(found.still[j]):
        return f"{name} hardly varies, by less than a third of the noise at sde.eps"
    if float(found.most[j]) >= 0.5 * share:
        return f"{name} is {show(found.value[j])} in {percent(float(found.most[j]))} of the rows"
    grid = f", on a grid of step {show(found.steps[j])}" if j in found.steps else ""
    return f"{percent(share)} of the values of {name} repeat{grid}"


def remedies(found: Repeats, data: Data) -> str:
    """Returns what to type, or what to change in the file."""
    if data.fingerprint() is None:  # generated data
        return "Choose other data, or a task that reports no density, as task=sample"
    # all values lie on a grid: they are integers in some unit
    grid = found.grid
    every = len(data.shape) > 1 or len(found.repeated) == data.dim - int(found.constant.sum())
    # that some columns lie on a grid may be chance, unless their values are whole numbers
    if grid is not None and not found.follows and found.repeated and (every or grid.counts):
        if grid.counts:
            return f"Type data.levels={grid.levels} to have whole numbers dequantised"
        low = "x.min(0)" if len(set(grid.low)) > 1 else show(grid.low[0])
        step = f"[{', '.join(map(show, grid.step))}]" if len(set(grid.step)) > 1 else show(grid.step[0])
        return (
            f"Save numpy.round((x - low) / step) with low = {low} and step = {step}, and type data.levels={grid.levels}"
        )
    # the columns or pixels to leave out; without any, only whole rows repeat
    away = sorted({*found.constant.nonzero()[:, 0].tolist(), *found.repeated, *found.follows})
    if not away:
        return "Keep one of each in the file, with numpy.unique(x, axis=0)"
    gone = torch.zeros(data.dim, dtype=torch.bool)
    gone[away] = True
    them, ways = "them" if len(away) > 1 else "it", []
    if len(data.shape) == 1 and len(away) < data.dim:
        # a column stays determined by one that is learnt when it moves to the condition
        tied = any(not set(others) <= set(away) for others in found.follows.values())
        without, given = data.without(away), None if tied else data.given(away)
        if without is not None and (given is None or data.dim - len(away) <= NAMED):
            ways.append(f"type {without} to leave {them} out")
        if given is not None:
            ways.append(f"type {given} to learn the other columns given {them}")
        if without is None:
            ways.append(f"leave {them} out of the file")
    elif channels := whole_channels(gone, data):
        ways.append(f"leave channel{'s' * (len(channels) > 1)} {', '.join(map(str, channels))} out of the file")
    elif len(data.shape) > 1:
        ways.append("crop the pictures in the file")
    if not found.degenerate and set(found.repeated) <= set(found.steps):
        ways.append(f"add numpy.random.uniform(0, step) of one step to {them} in the file")
    if not ways or len(data.shape) > 1:
        ways.append("add noise to these values in the file")
    said = ", or ".join(ways)
    return said[0].upper() + said[1:]


def full_channels(found: Repeats, data: Data) -> list[int]:
    """Returns the channels of pictures of which every pixel is constant."""
    return whole_channels(found.constant, data)


def whole_channels(pixels: torch.Tensor, data: Data) -> list[int]:
    """Returns the channels of pictures of which every pixel is among ``pixels`` (D,)."""
    return [] if len(data.shape) == 1 else pixels.reshape(data.shape[0], -1).all(1).nonzero()[:, 0].tolist()


def counted(named: list[str], dim: int, kind: str, what: str) -> str:
    """Returns "NAMES are WHAT" for up to three names, else "N of DIM KIND are WHAT" with the first as an example."""
    if len(named) <= SHOWN:
        return f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} {what}"
    return f"{len(named)} of {dim} {kind} are {what}, {named[0]} among them"


def place(data: Data, j: int) -> str:
    """Returns the name of value j of an example: its column, or its pixel."""
    if len(data.shape) == 1:
        names = data.labels()
        return f"column {names[j]!r}" if names else f"column {j}"
    at = []
    for size in reversed(data.shape):
        j, k = divmod(j, size)
        at.insert(0, k)
    return f"pixel [{','.join(map(str, at))}]"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def show(value: Any) -> str:
    return f"{float(value) + 0.0:.6g}"  # without the sign of -0
