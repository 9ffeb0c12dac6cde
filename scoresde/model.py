"""A trained model of data, with methods in data units: samples, log-densities, imputation and latent codes.

:class:`Model` is thin: each method builds the parts that the command line builds for the task of the same purpose, from
the same yamls, and calls them. So ``model.sample(64, sampler="pc", seed=0)`` draws what ``sampler=pc seed=0 count=64``
draws.
"""

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scoresde.conf import compatibility, density, schema
from scoresde.conf.compose import composed
from scoresde.conf.keys import typed_keys
from scoresde.conf.values import nodes, values_of
from scoresde.data import Data
from scoresde.data.examples import FARTHEST, is_frame
from scoresde.likelihood import Likelihood
from scoresde.models import ConditionalScore
from scoresde.samplers import Conditioner, Sampler
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.parts.codec import continuous
from scoresde.tasks.parts.conditions import encoded
from scoresde.tasks.parts.drawing import as_data
from scoresde.tasks.parts.progress import progress

from .forms import Form, rows_of

log = logging.getLogger(__name__)

GROUP = 1024  # draws of one posterior that are drawn together, by samplers of particles


class Model:
    """An SDE, its score and the data that it was fitted to; ``sde, score, data = model`` unpacks the three.

    Made by :func:`scoresde.fit` and :func:`scoresde.load`, or by hand of parts of your own. Methods take and return
    data units, in the kind that they are given: numpy arrays, tensors or data frames. A result depends on ``seed`` and
    not on ``batch``.

    Arguments:
        sde: the forward SDE.
        score: the score: any callable (x, t) -> score in model units, such as a trained network or an exact score.
        data: the data set, with its units.
        described: what the network was trained by, which :meth:`save` writes; None for a model made by hand.
        step: the number of updates of its training.
        training: the events of the training, each with ``step`` and ``loss`` or ``held_out_loss``.
        form: the kind in which :meth:`sample` returns samples; numpy arrays by default.
    """

    def __init__(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        described: dict[str, Any] | None = None,
        step: int = 0,
        training: list[dict] | None = None,
        form: Form | None = None,
    ):
        self.sde, self.score, self.data = sde, score, data
        self.described, self.step, self.training, self.form = described, step, training or [], form or Form()
        self._scores: dict[torch.dtype, ScoreFn] = {}
        self._checked: set[str] = set()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.sde, self.score, self.data))

    def __getitem__(self, place: int) -> Any:
        """Returns the SDE, the score or the data by its place, as of the tuple that ``load`` returned."""
        return tuple(self)[place]

    def __repr__(self) -> str:
        if isinstance(self.score, nn.Module):
            net, size = getattr(self.score, "net", self.score), sum(p.numel() for p in self.score.parameters())
            network = f"{type(net).__name__}" + (f" of {size:,} weights" if size else "")
        else:
            network = getattr(self.score, "__name__", type(self.score).__name__)
        parts = [f"{type(self.sde).__name__}", network] + ([f"{self.step:,} updates"] if self.step else [])
        return f"Model({', '.join(parts)}; {self.data!r})"

    # ---- samples ----

    def sample(
        self,
        count: int = 1,
        sampler: str | Sampler = "auto",
        *,
        given: Any = None,
        guidance: float = 1.0,
        seed: int = 0,
        batch: int | None = None,
        dtype: str = "float32",
        **settings: Any,
    ) -> Any:
        """Draws samples, (count, *) in data units; integers for data of levels.

        Arguments:
            count: the number of samples.
            sampler: a choice of the command line's group ``sampler``, or a :class:`scoresde.samplers.Sampler`.
            given: for a model of p(x | y), the y: a class, a number, a list of one y per sample, or numbers by name;
                without it, those of training examples in a random order. For a model of vectors, the known values by
                the column's name or number: the samples are then drawn from the posterior of the other columns, as
                :meth:`impute` does, and hold the known values.
            guidance: the guidance scale of p(x | y); 1 for p(x | y) itself.
            seed: of the noise.
            batch: the number of samples that are drawn at once.
            dtype: the precision, ``float32`` or ``float64``.
            settings: keys of the sampler, such as ``steps=100`` or ``nfe=20``.

        Raises:
            ValueError: an argument does not fit; the message says what does.
            FloatingPointError: a sample is not finite.
        """
        at_least("count", count, 1)
        if given is not None and self.data.condition is None:
            return self._sample_given(given, count, seed, batch, dtype, sampler, settings)
        task = self._task("sample", choice("sampler", sampler, settings), seed=seed, batch=batch, dtype=dtype)
        task = task if isinstance(sampler, str) else replace(task, sampler=sampler)
        self._check(task)
        score, y = self._conditional(dtype, given, guidance, count, seed)
        with progress("sampling", count, leave=False) as advance:
            x = task.drawing.draw(self.sde, score, self.data.shape, count, y, advance=advance)
        return self.form.rows(as_data(self.data, x), self.data.labels())

    def _sample_given(
        self, given: Any, count: int, seed: int, batch: int | None, dtype: str, sampler: Any, settings: dict
    ) -> Any:
        """Draws from the posterior of a vector some of whose columns are known."""
        r = torch.full((-(-count // GROUP), *self.data.shape), math.nan, dtype=torch.float64)
        for column, value in self._known(given).items():
            r[:, column] = value
        x = self._posterior(r, min(count, GROUP), "auto", sampler, seed, batch, dtype, settings)
        return self.form.rows(whole(self.data, x.flatten(0, 1)[:count]), self.data.labels())

    def _known(self, given: Any) -> dict[int, float]:
        """Returns the known values by the numbers of their columns; raises a ValueError for what names no columns."""
        names = self.data.labels() or [str(j) for j in range(self.data.dim)]
        if len(self.data.shape) != 1:
            raise ValueError("given: these are images of p(x); fit with condition='labels' to draw a class")
        if not isinstance(given, dict) or not given:
            raise ValueError(
                f"given={given!r}: this is a model of p(x), without a y; give known values by column, such as "
                f"given={{{names[0]!r}: 0.5}}, or fit with condition="
            )
        known = {}
        for name, value in given.items():
            if str(name) not in names:
                raise ValueError(f"given: there is no column {name!r}; the columns are {', '.join(names)}")
            if not isinstance(value, int | float | np.number) or not math.isfinite(value):
                raise ValueError(f"given: {name}={value!r} must be a finite number")
            known[names.index(str(name))] = float(value)
        if len(known) == self.data.dim:
            raise ValueError("given: every column is known, and nothing is left to draw; leave one out")
        return known

    # ---- densities ----

    def log_prob(
        self,
        x: Any,
        *,
        stderr: bool = False,
        given: Any = None,
        likelihood: str | Likelihood = "auto",
        seed: int = 0,
        batch: int | None = None,
        dtype: str = "float32",
        **settings: Any,
    ) -> Any:
        """Returns the log-density of points in nats and data units, (N,) float64.

        For data of integers it is a lower bound on log P of the integers, from one point of each bin.

        Arguments:
            x: the points, (N, *) in data units. A data frame for a model of p(x | y) may hold the numbers y too.
            stderr: whether to return (log_prob, stderr), with the standard error over random probes, (N,) in nats: 0
                where the trace is exact, as for up to 64 dimensions by default.
            given: for a model of p(x | y), the y of all points, or of each.
            likelihood: a choice of the command line's group ``likelihood``, or a
                :class:`scoresde.likelihood.Likelihood`.
            seed: of random probes, and of the places of integers in their bins.
            batch: the number of points that are scored at once.
            dtype: the precision, ``float32`` or ``float64``.
            settings: keys of the likelihood, such as ``rtol=1e-6``.

        Raises:
            ValueError: an argument does not fit; the message says what does.
            FloatingPointError: the score is not finite at a point.
        """
        given = self._frames_y(x) if given is None else given
        r = self._points(x)
        words = choice("likelihood", likelihood, settings, self.data.shape)
        task = self._task("likelihood", words, seed=seed, batch=batch, dtype=dtype)
        task = task if isinstance(likelihood, str) else replace(task, likelihood=likelihood)
        self._check(task)
        score, y = self._conditional(dtype, given, 1.0, len(r), seed)
        found = task.scoring.score(self.sde, score, self.data, r, y, leave=False)
        form = Form(x)
        parts = tuple(form.array(found[key].double()) for key in ("log_prob", "probe_stderr"))
        return parts if stderr else parts[0]

    # ---- posteriors ----

    def impute(
        self,
        table: Any,
        draws: int = 1,
        *,
        conditioner: str | Conditioner = "auto",
        sampler: str | Sampler = "auto",
        seed: int = 0,
        batch: int | None = None,
        dtype: str = "float32",
        **settings: Any,
    ) -> Any:
        """Fills in NaNs by draws from the posterior given the other values of the row; known values stay as they are.

        Arguments:
            table: rows (N, *) in data units, in which NaN stands for an unknown value; a data frame may have more
                columns than were learnt, which are kept.
            draws: the number of times that each row is filled in.
            conditioner: a choice of the command line's group ``conditioner``, or a
                :class:`scoresde.samplers.Conditioner`.
            sampler: whose steps the conditioner takes, as for :meth:`sample`.
            seed, batch, dtype: as for :meth:`sample`.
            settings: keys of the sampler, such as ``steps=200``.

        Returns:
            the filled table in its own kind; for several draws an array, (N, draws, *).

        Raises:
            ValueError: an argument does not fit; the message says what does.
            FloatingPointError: draws have diverged.
        """
        at_least("draws", draws, 1)
        if self.data.condition is not None:
            raise ValueError("impute is for models of p(x), and this is one of p(x | y): fit without condition=")
        r = self._points(table, missing=True)
        rows = r.isnan().flatten(1).any(1)
        x = r[:, None].repeat(1, draws, *[1] * (r.ndim - 1))
        if bool(rows.any()):
            found = self._posterior(r[rows], draws, conditioner, sampler, seed, batch, dtype, settings)
            x[rows] = torch.from_numpy(whole(self.data, found)).double()
        if draws > 1:
            return Form(table).array(x)
        return filled(table, x[:, 0].numpy(), self.data.labels())

    def _posterior(
        self,
        r: Tensor,
        draws: int,
        conditioner: str | Conditioner,
        sampler: str | Sampler,
        seed: int,
        batch: int | None,
        dtype: str,
        settings: dict[str, Any],
    ) -> Tensor:
        """Returns draws (N, draws, *) in data units, float64, of rows r (N, *) in which NaN is unknown."""
        words = choice("conditioner", conditioner, {}) + choice("sampler", sampler, settings)
        task = self._task("impute", words, seed=seed, batch=batch, dtype=dtype, draws=draws)
        for name, part in (("conditioner", conditioner), ("sampler", sampler)):
            task = task if isinstance(part, str) else replace(task, **{name: part})
        self._check(task)
        problem = task.missing(self.data, r, "the rows hold")
        x = task.solve(self.sde, self._score(dtype), self.data, problem, draws, leave=False)
        task.out_of_range(self.data, problem, x)
        return x

    # ---- codes ----

    def encode(
        self,
        x: Any,
        *,
        given: Any = None,
        seed: int = 0,
        batch: int | None = None,
        dtype: str = "float32",
        **settings: Any,
    ) -> Any:
        """Carries points (N, *) in data units to their latent codes (N, *) in model units, by the probability flow.

        Over the data, codes divided by ``sde.prior_std`` are nearly N(0, I). An integer stands for a random place in
        its bin, by ``seed``.

        Arguments:
            given, batch, dtype: as for :meth:`log_prob`.
            settings: keys of ``task=encode``, such as ``rtol=1e-7``.
        """
        given = self._frames_y(x) if given is None else given
        r = self._points(x)
        task = self._task("encode", values("task", settings), seed=seed, batch=batch, dtype=dtype)
        score, y = self._conditional(dtype, given, 1.0, len(r), seed)
        points = continuous(self.data, r, seed)
        return Form(x).array(task.codec.encode(self.sde, score, self.data, points, y=y, leave=False))

    def decode(
        self, z: Any, *, given: Any = None, batch: int | None = None, dtype: str = "float32", **settings: Any
    ) -> Any:
        """Carries latent codes (N, *) in model units back to points (N, *) in data units; inverse to :meth:`encode`.

        Arguments:
            given, batch, dtype, settings: as for :meth:`encode`.
        """
        codes = torch.as_tensor(np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z))
        if tuple(codes.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the codes are of shape {tuple(codes.shape)}: give (N, {', '.join(map(str, self.data.shape))})"
            )
        task = self._task("encode", values("task", settings), seed=0, batch=batch, dtype=dtype)
        score, y = self._conditional(dtype, given, 1.0, len(codes), 0)
        found = task.codec.decode(self.sde, score, self.data, codes, y=y, leave=False)
        form = Form(z) if isinstance(z, Tensor) else self.form
        return form.rows(whole(self.data, found), self.data.labels())

    # ---- files ----

    def save(self, path: str | Path) -> Path:
        """Writes the model to a new folder, which :func:`scoresde.load` and ``checkpoint=PATH`` read; returns its path.

        Raises:
            ValueError: the model was made by hand, or the folder holds something else.
            OSError: it cannot be written.
        """
        from scoresde.conf.saved import save

        if self.described is None:
            raise ValueError(
                "this model was made of parts of your own, and no configuration describes it; save the weights with "
                "torch.save(model.score.state_dict(), PATH), or train it with scoresde.fit"
            )
        return save(Path(path).expanduser(), self.described, self.score, self.data, self.step)

    # ---- parts ----

    def _task(self, name: str, words: list[str], *, seed: int, batch: int | None, dtype: str, **values: Any) -> Any:
        """Returns the command line's task of this name, with the parts that the words choose."""
        cfg, _ = composed(["data=arrays", f"task={name}", *words])
        device = self._device()
        node = cfg["task"] | {"seed": int(seed), "device": device, "dtype": dtype} | values
        if batch is not None:
            node["batch"] = int(batch)
        cfg = schema.with_short_targets(cfg | {"task": node})
        for key in nodes(cfg):
            schema.check(cfg[key], key, unsettled=key != "data")
        typed = typed_keys(cfg, self.data.shape)
        found = schema.settle({"task": cfg["task"]}, self.data.shape, values_of(cfg, self.data, device))["task"]
        schema.check(found, "task")
        return schema.build(schema.canonical(found), "task", typed)

    def _device(self) -> str:
        """Returns the device of the score."""
        tensors = [*self.score.parameters(), *self.score.buffers()] if isinstance(self.score, nn.Module) else []
        return str(tensors[0].device) if tensors else "cpu"

    def _score(self, dtype: str) -> ScoreFn:
        """Returns the score in a precision; a copy of it where it has another."""
        wanted = getattr(torch, dtype)
        if not isinstance(self.score, nn.Module):
            return self.score
        if wanted not in self._scores:
            kinds = {t.dtype for t in [*self.score.parameters(), *self.score.buffers()] if t.is_floating_point()}
            self._scores[wanted] = self.score if kinds <= {wanted} else copy.deepcopy(self.score).to(wanted)
        return self._scores[wanted]

    def _conditional(
        self, dtype: str, given: Any, guidance: float, count: int, seed: int
    ) -> tuple[ScoreFn, Tensor | None]:
        """Returns the score, and the encoded y of ``count`` samples, (count, width) or (1, width); None without a y."""
        score, condition = self._score(dtype), self.data.condition
        if condition is None:
            if given is not None:
                raise ValueError(f"given={given!r}: this is a model of p(x), without a y; leave it out")
            if guidance != 1:
                raise ValueError(
                    f"guidance={guidance} is for models of p(x | y), and this is one of p(x); leave it out"
                )
            return score, None
        if given is not None:
            condition = condition.asking(plain(given))
            if len(condition.asked) not in (1, count):
                raise ValueError(
                    f"given: {len(condition.asked)} values of y for {count} samples; give one, or one each"
                )
        elif not len(condition.train):
            raise ValueError(f"give the y of these samples, given=..., of {', '.join(map(str, condition.names[:20]))}")
        return ConditionalScore(score, float(guidance)), encoded(self.data, condition.drawn(count, seed))

    def _frames_y(self, x: Any) -> Any:
        """Returns the numbers y that a data frame holds beside x; None where it does not, or the model has no y."""
        condition = self.data.condition
        if condition is None or condition.classes or not is_frame(x):
            return None
        columns = {str(column): column for column in x.columns}
        if not set(condition.names) <= set(columns):
            return None
        return np.column_stack([np.asarray(x[columns[name]]) for name in condition.names]).astype(float).tolist()

    def _points(self, x: Any, missing: bool = False) -> Tensor:
        """Returns the user's points as a tensor in data units; raises a ValueError for those too far to be scored."""
        r = rows_of(x, self.data, missing)
        far = (self.data.encode(r).abs() > FARTHEST).flatten(1).any(1)  # NaN passes
        if bool(far.any()):
            raise ValueError(
                f"row {int(far.nonzero()[0])} lies more than {FARTHEST:.0e} standard deviations from the data's mean: "
                f"correct it, or leave it out"
            )
        return r

    def _check(self, task: Any) -> None:
        """Warns once for each kind of task of what does not fit the data, and refuses data without a density."""
        name = type(task).__name__
        if name in self._checked:
            return
        density.check(task, self.sde, self.data)
        compatibility.detail(task, self.sde, self.data)
        compatibility.start(task, self.sde, self.data)
        self._checked.add(name)


def choice(group: str, part: Any, settings: dict[str, Any], shape: tuple[int, ...] = ()) -> list[str]:
    """Returns the words of a command line that choose a part by its name, with its settings.

    Arguments:
        shape: of an example, for a choice ``auto`` that has its keys for vectors and for images.

    Raises:
        ValueError: settings are given for a part that is an object.
    """
    if isinstance(part, str):
        place = f"{group}.{'vectors' if len(shape) == 1 else 'images'}" if part == "auto" and shape else group
        return [f"{group}={part}", *values(place, settings)]
    if settings:
        raise ValueError(f"{', '.join(settings)}: set them on the {type(part).__name__} itself")
    return []


def values(group: str, settings: dict[str, Any]) -> list[str]:
    """Returns settings as words of a command line."""
    return [f"{group}.{key}={'null' if value is None else value}" for key, value in settings.items()]


def plain(given: Any) -> Any:
    """Returns a y of numpy, torch or plain Python in plain Python."""
    if isinstance(given, dict):
        return {str(key): plain(value) for key, value in given.items()}
    if isinstance(given, Tensor | np.ndarray | np.generic):
        return given.tolist()
    return [plain(each) for each in given] if isinstance(given, list | tuple) else given


def whole(data: Data, r: Tensor) -> np.ndarray:
    """Returns values in data units, rounded down to the levels for data of integers."""
    if data.levels is None:
        return r.numpy()
    kind = np.uint8 if data.levels <= 256 else np.int64
    return r.floor().clamp(0, data.levels - 1).numpy().astype(kind)


def filled(table: Any, values: np.ndarray, names: list[str] | None) -> Any:
    """Returns the user's table with its learnt columns filled in, in its own kind; other columns stay as they are."""
    if not is_frame(table) or names is None:
        return Form(table).array(values)
    kept = {str(column): table[column] for column in table.columns}
    result = type(table)({**kept, **dict(zip(names, values.T, strict=True))})
    if hasattr(table, "index"):
        result.index = table.index
    return result


def at_least(name: str, value: int, least: int) -> None:
    """Raises a ValueError unless a value is a whole number of at least ``least``."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
