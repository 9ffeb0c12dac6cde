"""The contract of a task: what a run does with its data, its forward process and the networks that it requests.

A new task is one subclass of :class:`Task` and one yaml in ``conf/task``. A run checks the task against its SDE and its
data, and then calls it with a :class:`Job`. The task requests each network from ``job.networks`` when it needs it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from scoresde.data import Condition, Data
from scoresde.likelihood import Dequantisation
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE
from scoresde.tasks.parts.record import Record
from scoresde.training import Snapshots


class Task(ABC):
    """The work of a run: ``task(job)`` returns the metrics, and writes arrays and pictures to ``job.record``.

    The attributes say what a run must know about a task before it is called.

    Attributes:
        process: the class of forward processes that the task is for; ``object`` for any.
        conditions: what the task does with data of p(x | y): ``each`` gives each example a y of its own, ``one`` works
            on p(x | y) at the one class label that ``condition=`` names, ``none`` refuses such data.
        reports_density: whether the task reports densities. A run then refuses data that do not vary in some direction,
            and warns of values that repeat (:mod:`scoresde.data.repeats`).
        refuses_guidance: whether the task refuses a guided score, which is the score of no density.
        every_level: whether the task evaluates the score at every noise level. A run then warns of a network that it
            trains at one level.
        dequantisation: which points of a bin stand for its integer; None for a task without this choice.
        requests: the methods of :class:`Networks` that the task calls. ``score`` stands for those that return the run's
            score too: ``sampled``, ``along`` and ``averages``. A run refuses keys of parts that no network needs
            (:mod:`scoresde.conf.unused`).
    """

    process: ClassVar[type] = SDE
    conditions: ClassVar[Literal["each", "one", "none"]] = "one"
    reports_density: bool = False
    refuses_guidance: ClassVar[bool] = False
    every_level: bool = True
    dequantisation: Dequantisation | None = None
    requests: tuple[str, ...] = ("score",)

    def check(self, sde: SDE, data: Data) -> None:  # noqa: B027 (most tasks refuse nothing)
        """Refuses what cannot work, before anything is trained; refuses nothing by default.

        Arguments:
            data: with the y that ``condition=`` names, if these are data of p(x | y).

        Raises:
            ValueError: names the key, the value, what is allowed and what to type.
        """

    @abstractmethod
    def __call__(self, job: "Job") -> dict[str, Any]:
        """Does the task. Returns its metrics by name, numbers or words; a sweeper gets the first number, leaving out
        ``count``.
        """

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        """The samplers that draw data from the network: the task's ``sampler`` and ``samplers``, if it has them.

        A run warns where the noise at eps hides detail of the data, which no last step of theirs restores, and where
        the noise at T is too small for them to start from.
        """
        return tuple(filter(None, [getattr(self, "sampler", None), *getattr(self, "samplers", {}).values()]))


@dataclass(frozen=True)
class Network:
    """A trained network, or a model that needs no training.

    Attributes:
        model: the score, the classifier or the latent-variable model, on the run's device and in its precision.
        training: the events of its training, in order, each with ``step`` and ``loss`` or ``held_out_loss``; empty for
            a model that needs none, and for one of ``checkpoint=`` (but :meth:`Networks.along` reads them there too).
        folder: the folder of its checkpoints; None for a model without one.
    """

    model: Any
    training: list[dict] = field(default_factory=list)
    folder: Path | None = None


@dataclass(frozen=True)
class Along(Network):
    """A network, and what was kept during its training.

    Attributes:
        kept: functions that load the average of the weights as it was, by the number of updates.
    """

    kept: dict[int, Callable[[], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Averaged(Network):
    """A network, and the averages of its weights that were kept during its training.

    Attributes:
        snapshots: the averages that were kept, from which those of other lengths are made; None where none were kept.
    """

    snapshots: Snapshots | None = None


@dataclass(frozen=True)
class Sampled(Network):
    """A network, and where its samples are cached.

    Attributes:
        root: the folder that holds the cache's folder.
        described: the cache key, in plain values.
    """

    root: Path = Path()
    described: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """The features in which samples and data are compared.

    Attributes:
        net: a network with a method ``features``, and ``log_prob`` of these if it is a classifier; or
            :class:`scoresde.metrics.Values`.
        classes: the labels that the classifier tells apart; None for features that were not learnt from labels.
        title: the features' name in the metrics' names, such as ``cnn@HASH`` or ``values``.
    """

    net: Any
    classes: Condition | None
    title: str


class Networks(Protocol):
    """The networks that a task requests: exact, loaded by ``checkpoint=`` or from the store, resumed there, or trained.

    The methods raise ValueErrors that name the key and what to type, and a FileNotFoundError for a path that does not
    exist, before a training begins.
    """

    def score(self, accept: Callable[[SDE, Any], Any] | None = None) -> Network:
        """Returns the run's score.

        For data of p(x | y) its model is a :class:`scoresde.models.ConditionalScore` in a task with ``conditions =
        "each"``, and the score given the one y that ``condition=`` names in others.

        Arguments:
            accept: is called with the SDE and the untrained network, and raises a ValueError to refuse it; not called
                for an exact score or one of ``checkpoint=``.
        """

    def sampled(self) -> Sampled:
        """Returns the run's score, and where its samples are cached."""

    def classifier(self) -> Network:
        """Returns the classifier p(y | x, t) of noisy data."""

    def along(self, shares: tuple[float, ...]) -> Along:
        """Returns the run's score, and its averages after these shares of its updates; for ``checkpoint=`` those that
        lie there.
        """

    def averages(self, count: int) -> Averaged:
        """Returns the run's score, and averages that were kept ``count`` times during its training, evenly; for
        ``checkpoint=`` those that lie there.
        """

    def rivals(self) -> dict[str, Network]:
        """Returns the networks of ``task.trainers`` by name, each trained by its trainer."""

    def models(self) -> dict[str, Network]:
        """Returns the models of ``task.models`` by name, each by its recipe.

        A task with ``seeds`` gets each model once per seed, as NAME/0, NAME/1, ... A task whose ``score`` is true gets
        the run's own score too, under the name ``score`` (with seeds score/0, ...). The task's constructor must have
        called :func:`scoresde.tasks.studies.recipes.check_recipes`.
        """

    def other(self, path: str) -> tuple[SDE, Any]:
        """Returns the SDE and the score of another network of the same data; ``path`` is its folder in the store."""

    def features(self) -> Features:
        """Returns the features of ``task.features``; a network of theirs is trained if it is not in the store."""


@dataclass(frozen=True)
class Job:
    """The input of a task.

    Attributes:
        sde: the forward process.
        data: the data, with the y that ``condition=`` names.
        record: where results are written.
        networks: where the task requests its networks.
        data_metrics: metrics of the data, which the run adds to the task's. They are there for a task that reports the
            density of data whose values repeat: ``repeated_share`` and ``repeated_nats_per_decade``
            (:mod:`scoresde.data.repeats`).
    """

    sde: SDE
    data: Data
    record: Record
    networks: Networks
    data_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """A :class:`Networks` of networks that you give, for a task that is called from Python with a score of your own.

    Each method returns the constructor's argument of the same name, ``score`` and ``classifier`` as a :class:`Network`
    if they are given as a callable. It ignores its own arguments, and raises a ValueError if nothing was given.
    """

    found: dict[str, Any]

    def __init__(self, score: Any = None, **found: Any):
        object.__setattr__(self, "found", found | ({} if score is None else {"score": score}))

    def score(self, accept: Callable[[SDE, Any], Any] | None = None) -> Network:
        found = self.found_as("score")
        return found if isinstance(found, Network) else Network(found)

    def sampled(self) -> Sampled:
        return self.found_as("sampled")

    def classifier(self) -> Network:
        found = self.found_as("classifier")
        return found if isinstance(found, Network) else Network(found)

    def along(self, shares: tuple[float, ...]) -> Along:
        return self.found_as("along")

    def averages(self, count: int) -> Averaged:
        return self.found_as("averages")

    def rivals(self) -> dict[str, Network]:
        return self.found_as("rivals")

    def models(self) -> dict[str, Network]:
        return self.found_as("models")

    def other(self, path: str) -> tuple[SDE, Any]:
        return self.found_as("other")

    def features(self) -> Features:
        return self.found_as("features")

    def found_as(self, name: str) -> Any:
        """Returns the constructor's argument of this name; raises a ValueError if it was not given."""
        if name not in self.found:
            raise ValueError(
                f"this task needs networks.{name}(); type Given({name}=...), or run it from the command line"
            )
        return self.found[name]
