r"""Measures the quality of samples by distances, coverage and classes, each beside its floor, the value of real data.

Samples are drawn once and cached (:mod:`scoresde.tasks.parts.sample_cache`); a later run takes them from the cache and
draws only those that are absent. They are compared with held-out data in features: by default images in those of a
small classifier of these data (:mod:`scoresde.models.features`), and vectors by their values in model units.

* ``fd-NET@HASH``, ``kd-NET@HASH``: the Frechet and the kernel distance (:mod:`scoresde.metrics.frechet`,
  :mod:`scoresde.metrics.kernel`) of features. HASH is that of the network's weights; of values the names are
  ``fd-values`` and ``kd-values``. These distances cannot be compared with those of other networks, nor with an FID.
* ``precision``, ``recall``, ``density``, ``coverage`` of the features: see :mod:`scoresde.metrics.support`.
* ``sliced_wasserstein``: the distance of the samples themselves, in ``distance_unit``: ``data`` for data units, ``std``
  for standard deviations, where columns have units of their own.

A floor is the same measure of training data against held-out data. Distances depend on the counts: samples and training
data are therefore cut into sets of one size, ``compared``, the smaller of both counts, and each number is the mean over
up to four sets. A perfect sampler is at the floor, apart from what the network has memorised of its training data.

If the features are those of a classifier of the data's labels, it classifies each sample, and the floors are the same
measures of the held-out data:

* ``is-NET@HASH``: the classifier score (:mod:`scoresde.metrics.classes`), an inception score with this network.
* ``confident``: the share of samples that the network assigns to a class with a probability of more than 90 %.
* ``class_ratio_NAME``, of up to 20 classes: the share of a class among the samples over its share in the training set;
  ``class_ratio_least`` and ``class_ratio_most`` of these ratios, and ``class_variation``, the total variation between
  both sets of shares.
* ``label_accuracy``: for samples drawn class by class, the share that the network assigns to their class;
  ``classifier_accuracy``: for other samples, the network's accuracy on the held-out data.

If ``condition=`` names classes, the samples have only these, and the score and the shares are left out.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoresde.data import Condition, Conditional, Data, read_points
from scoresde.metrics import (
    Values,
    class_shares,
    classifier_score,
    confident,
    gaussian_distance,
    kernel_distance,
    sliced_wasserstein,
    support_of,
)
from scoresde.metrics.frechet import mean_and_covariance
from scoresde.metrics.kernel import rows
from scoresde.metrics.support import radii
from scoresde.samplers import Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, Counted
from scoresde.tasks.parts.batches import Batch
from scoresde.tasks.parts.conditions import encoded
from scoresde.tasks.parts.drawing import Drawing, as_data
from scoresde.tasks.parts.inception import inception, inception_distances
from scoresde.tasks.parts.points import shuffled
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.sample_cache import CachedSamples, SampleCache
from scoresde.training import Recipe

from .task import Job, Task

log = logging.getLogger(__name__)

SETS = 4  # sets of samples, and of training data, at most
MOST = 10_000  # held-out data at most with which samples are compared
BLOCK = 256  # points whose features are computed at once
PIECE = 512  # images per file of the cache at most: a killed run loses no more
WIDEST = 4096  # values of a point at most as features, since the root of their covariance takes cubic time
LEAST = 6  # samples, and data of either part, at least, since the fifth neighbour is needed
MANY = 20  # classes at most that are listed by name


@dataclass(frozen=True)
class Evaluate(Task):
    """Measures the quality of samples; see the module's text.

    Writes evaluation.png and, if the features come from a classifier of labels, evaluation.npz.

    Arguments:
        sampler: turns noise into samples.
        features: the features in which samples are compared: the recipe of a network, or
            :class:`scoresde.metrics.Values`.
        tempering: the temperature of the samples, and how it is reached.
        samples: a file of samples in data units to measure instead.
        fid: whether to report the FID with Inception's features too, or the path of Inception's weights, .pth or
            .safetensors.
        count: the number of samples; None for 10,000 vectors or 5,000 images, or all of ``samples``.
        batch, seed, device, dtype: for sampling; see :class:`scoresde.tasks.Sample`.
    """

    conditions: ClassVar[str] = "each"

    only_with: ClassVar[dict] = dict.fromkeys(("sampler", "tempering"), ("samples", (None,)))

    sampler: Sampler
    features: Recipe | Values = field(default_factory=Values)
    tempering: Tempering = field(default_factory=TemperedNoise)
    samples: str | None = None
    fid: bool | str = False
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        self.drawing  # noqa: B018 (its own checks)
        if self.count is not None and self.count < LEAST:
            raise ValueError(
                f"`count`={self.count} must be at least {LEAST} to compare samples with data; type `count`=1000"
            )

    @property
    def requests(self) -> tuple[str, ...]:
        return ("features", "score") if self.samples is None else ("features",)

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        return (self.sampler,) if self.samples is None else ()

    @property
    def drawing(self) -> Drawing:
        """Draws the samples with this task's settings."""
        return Drawing(self.sampler, self.tempering, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        condition = data.condition
        if condition is not None and not condition.classes and condition.asked is not None:
            raise ValueError(
                "condition= names numbers y that no held-out data have, so there is nothing to compare samples with; "
                "leave condition out to compare x and y together"
            )
        for key, part in (("training", data.train), ("held-out", data.test)):
            if len(part) < LEAST:
                raise ValueError(f"{len(part)} {key} data are too few to compare samples with: {LEAST} at least")
        if self.samples is not None:
            self.samples_of_file(data)  # so that its errors come before a training of features
        if isinstance(self.features, Values) and data.dim > WIDEST:
            raise ValueError(
                f"task/features=values compares covariances, and {data.dim} values, more than {WIDEST}, are too "
                f"many for them; type task/features={'cnn' if len(data.shape) == 3 else 'mlp, for labelled vectors'}"
            )
        if self.fid:
            if len(data.shape) != 3 or data.shape[0] not in (1, 3) or data.levels is None:
                raise ValueError(
                    f"task.fid={self.fid}: the FID is for grey or colour images of integer levels, and these data "
                    f"have the shape {tuple(data.shape)}; leave it out"
                )
            inception(self.fid, "cpu")  # so that its errors come before a long training

    def __call__(self, job: Job) -> dict:
        data, record = job.data, job.record
        features = job.networks.features()
        cached, y = self.obtain(job)
        net, classes, title = features.net, features.classes, features.title
        r, condition = torch.from_numpy(cached.x), data.condition
        test, size = torch.arange(min(MOST, len(data.test))), min(len(r), len(data.train))
        if size < len(r):
            log.info("samples are compared in sets of %s: there are no more training data to set a floor", f"{size:,}")

        # distances and coverage of the samples, and their floor, those of training data
        view = View(net, data, self.device, joined=y is not None and not condition.classes)
        reference = Points(data.test[test], None if condition is None else condition.test[test])
        train = slice(SETS * size)
        floors = Points(data.train[train], None if condition is None else condition.train[train])
        parts = {"samples": Points(r, y), "floor": floors}
        distances, floor = self.measured(view, parts, reference, size, data, title)
        metrics, stderr = {}, f"kd-{title}_stderr"
        for key in distances:
            metrics[key] = distances[key]
            if key != stderr:
                metrics[f"{key}_floor"] = floor[key]
        # classes
        shares = {}
        if classes is not None:
            verdicts, shares = self.classified(view, r, y, data, test, classes, title)
            metrics |= verdicts
            record.arrays("evaluation", names=list(classes.names), **{k: v.numpy() for k, v in shares.items()})
        if self.fid:
            metric = inception(self.fid, self.device)
            metrics |= inception_distances(metric, r, data, self.device, min(64, self.batch))
        metrics |= {
            "features": title,
            "count": len(r),
            "compared": size,
            "reference": len(test),
            "distance_unit": data.distance_unit,
        }
        if cached.evaluations:
            metrics |= {"nfe": cached.evaluations / len(r), "seconds": cached.seconds, "drawn_now": cached.drawn}
        from scoresde.figures.evaluation import evaluation

        path, names = record.path("evaluation.png"), () if classes is None else classes.names
        shown = {key: share.numpy() for key, share in shares.items()}
        record.picture(evaluation(r[:2000], reference.x[:2000], metrics, shown, names, path, data.levels))
        return metrics

    def measured(
        self, view: "View", parts: dict[str, "Points"], reference: "Points", size: int, data: Data, title: str
    ) -> list[dict[str, float]]:
        """Returns the distances of each of the ``parts`` from the reference, in the order of the parts: means over up
        to four sets of ``size`` points.

        Arguments:
            title: the features' name in the names of the distances.
        """
        means, most = [], max(2, min(MOST, 2**24 // data.dim))  # bounds the memory
        starts = {name: range(0, min(len(part.x), SETS * size) - size + 1, size) for name, part in parts.items()}
        base, done = Base(view(reference.x, reference.y)), 0
        with progress("comparing", sum(map(len, starts.values()))) as advance:
            for name, part in parts.items():
                found = []
                for first in starts[name]:
                    at = slice(first, first + size)
                    h = view(part.x[at], None if part.y is None else part.y[at])
                    row = base.compared(h, title)
                    row["sliced_wasserstein"] = sliced_wasserstein(
                        data.commensurate(part.x[at][:most]), data.commensurate(reference.x[:most])
                    )
                    found.append(row)
                    done += 1
                    advance(done)
                means.append({key: sum(row[key] for row in found) / len(found) for key in found[0]})
        return means

    def obtain(self, job: Job) -> tuple[CachedSamples, Tensor | None]:
        """Returns the samples in data units, and the y of each, (N,) or (N, C), which is None for the samples of a file
        or without a condition.
        """
        sde, data = job.sde, job.data
        if self.samples is not None:
            return CachedSamples(self.samples_of_file(data, quiet=True).numpy(), 0, 0.0, 0), None
        network = job.networks.sampled()
        images = len(data.shape) == 3
        count, counted = self.count or (5000 if images else 10_000), Counted(network.model)
        y = None if data.condition is None else data.condition.drawn(count, self.seed)
        c, drawing, cache = encoded(data, y), self.drawing, SampleCache(network.root, network.described)
        if (cached := cache.found(count)) is not None:
            return cached, y
        if title := getattr(self.sampler, "title", None):  # sampler=auto says what it chose
            log.info(title)
        with progress("sampling", count) as advance:

            def draw(first: int, size: int):
                before = counted.evaluations
                batch = Batch(first, size, lambda share: advance(first, size, share))
                x = drawing.part(sde, counted, data.shape, batch, c)
                advance(first + size)
                return as_data(data, x), counted.evaluations - before

            piece = min(self.batch, PIECE) if images else self.batch
            return cache.obtain(count, piece, draw, time.monotonic), y

    def samples_of_file(self, data: Data, quiet: bool = False) -> Tensor:
        """Returns up to ``count`` samples of the file ``samples`` in a random order, (N, *) in data units.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it holds too few samples or other shapes.
        """
        r = read_points(self.samples, data.shape, data.levels, data.labels(), key="task.samples", quiet=quiet)
        r, _ = shuffled(r, None, self.count)
        if len(r) < LEAST:
            raise ValueError(f"task.samples={self.samples} holds {len(r)} samples, and {LEAST} are the least")
        return r

    def classified(
        self, view: "View", r: Tensor, y: Tensor | None, data: Data, rows: Tensor, classes: Condition, title: str
    ) -> tuple[dict, dict]:
        """Returns the classifier's metrics of samples r, beside those of the held-out data, and the shares of the
        classes, (K,) each; {} of shares if ``condition=`` names classes.

        Arguments:
            y: the y of each sample; None without a condition.
            rows: the places in ``data.test`` of the held-out data.
            classes: the labels that the classifier tells apart.
            title: the features' name in the names of metrics.
        """
        sampled, real = view.log_prob(r), view.log_prob(data.test[rows])
        # data.test may hold only the classes that condition= names, and the labels of its rows are then the condition's
        labels = data.condition.test[rows] if isinstance(data, Conditional) and data.condition.classes else None
        labels = classes.test[rows] if labels is None else labels
        found = {"confident": confident(sampled), "confident_floor": confident(real)}
        accuracy, shares = float((real.argmax(1) == labels).double().mean()), {}
        if y is not None and data.condition.classes:
            found |= {
                "label_accuracy": float((sampled.argmax(1) == y).double().mean()),
                "label_accuracy_floor": accuracy,
            }
        else:
            found["classifier_accuracy"] = accuracy
        if data.condition is not None and data.condition.asked is not None:
            return found, shares  # the samples have only the classes that condition= names
        key = f"is-{title}"
        found[key], found[f"{key}_stderr"] = classifier_score(sampled)
        found[f"{key}_floor"], _ = classifier_score(real)
        # the shares of the classes, against those of the training set
        truth = torch.bincount(classes.train, minlength=len(classes.names)).double() / len(classes.train)
        shares = {"class_shares": class_shares(sampled), "class_shares_held_out": class_shares(real)}
        for end, share in zip(("", "_floor"), shares.values(), strict=True):
            ratio = (share / truth)[truth > 0]
            found |= {f"class_ratio_least{end}": float(ratio.min()), f"class_ratio_most{end}": float(ratio.max())}
            found[f"class_variation{end}"] = float((share - truth).abs().sum() / 2)
        shares["class_shares_train"] = truth
        if len(classes.names) <= MANY:
            ratios = (shares["class_shares"] / truth).tolist()
            found |= {f"class_ratio_{name}": v for name, v in zip(classes.names, ratios, strict=True)}
        return found, shares


@dataclass(frozen=True)
class Points:
    """Points in data units, (N, *), and the y of each, (N,) or (N, C); None without a condition."""

    x: Tensor
    y: Tensor | None


class View:
    """Maps points in data units to the features in which they are compared.

    Arguments:
        net: has ``features``, and ``log_prob`` of them if it is a classifier; see :class:`scoresde.tasks.Features`.
        data: the data whose units points have.
        device: where a network is evaluated.
        joined: whether numbers y are appended to each point's features, to compare x and y together.
    """

    def __init__(self, net: Any, data: Data, device: str, joined: bool):
        self.net, self.data, self.joined = net, data, joined
        self.device = device if isinstance(net, nn.Module) else "cpu"

    @torch.no_grad()
    def features(self, r: Tensor) -> Iterator[Tensor]:
        """Yields the features (B, F) of points r (N, *) in data units, in blocks: a network's in float32 on its device,
        values in float64 on the CPU.
        """
        dtype = torch.float32 if isinstance(self.net, nn.Module) else torch.float64
        for part in r.split(BLOCK):
            x = self.data.encode(self.data.dequantise(part, None).double())
            yield self.net.features(x.to(self.device, dtype))

    def __call__(self, r: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns the features (N, F) of points r (N, *) in data units, with y (N, C) appended if joined; float64."""
        h = torch.cat([part.cpu().double() for part in self.features(r)])
        if self.joined:
            condition = self.data.condition
            h = torch.cat([h, ((y.double() - condition.shift) / condition.scale).to(h)], 1)
        return h

    @torch.no_grad()
    def log_prob(self, r: Tensor) -> Tensor:
        """Returns log p(k | x) in nats of points r (N, *) in data units, (N, K), float64."""
        return torch.cat([self.net.log_prob(part).double().cpu() for part in self.features(r)])


class Base:
    """The features h (M, F) of the reference, and what every comparison with them needs: their moments, the row sums of
    the kernel distance and the balls of the coverage, computed once.
    """

    def __init__(self, h: Tensor):
        self.h, self.moments, self.rows, self.radii = h, mean_and_covariance(h), rows(h), radii(h, 3, 5)

    def compared(self, h: Tensor, title: str) -> dict[str, float]:
        """Returns the distances of features h (N, F) from those of the reference, and their coverage, by the names of
        the metrics.
        """
        kd, stderr = kernel_distance(h, self.h, self.rows)
        found = {f"fd-{title}": gaussian_distance(*mean_and_covariance(h), *self.moments)}
        found |= {f"kd-{title}": kd, f"kd-{title}_stderr": stderr}
        return found | asdict(support_of(h, self.h, (3, 5), self.radii))
