r"""Compares generative models of several kinds: the modes they cover, the distances of their samples from the data, and
the spread of both over seeds.

Each model is trained from several seeds, and samples are drawn once from each trained model. The modes are the
components of a mixture, or the classes of labelled data as an independent classifier assigns them
(:mod:`scoresde.metrics.coverage`); a training has *collapsed* if its samples miss a mode. Every measure is reported
beside its floor, the same measure of as many training data. The spread over the seeds is that of whole trainings and
shows how stable they are.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.metrics import Classes, Coverage, mode_coverage, precision_recall, sliced_wasserstein
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE
from scoresde.tasks.parts.batches import Advance
from scoresde.tasks.parts.drawing import Drawing
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.task import Job, Task
from scoresde.training import Recipe

from .recipes import check_recipes, draw, in_data_units

log = logging.getLogger(__name__)

NEIGHBOURS = 3  # k of precision and recall
MEASURED = 2000  # points at most in precision and recall, quadratic in them, and in the classifier's accuracy
SHOWN = 2000  # points at most in the picture


@dataclass(frozen=True)
class Generators(Task):
    """Compares generative models; see the module's text.

    Writes generators.npz and generators.png.

    Arguments:
        models: recipes of latent-variable models by name.
        score: whether the run's own score is compared too, under the name ``score``.
        sampler: the sampler of the run's own score, and of the codes of score priors.
        seeds: the number of trainings of each model, with seeds from its training.seed on.
        count: the number of samples of each training; None for 10,000 vectors or 1,000 images.
        batch: the number of samples per batch; the samples do not depend on it, with the exceptions of
            :class:`scoresde.tasks.Sample`.
        seed: the seed of the samples.
        device, dtype: where, and in which precision.
    """

    conditions: ClassVar[str] = "none"

    models: dict[str, Recipe]
    sampler: Sampler
    score: bool = True
    seeds: int = 3
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_recipes(self.models)
        if "score" in self.models:
            raise ValueError("`models.score`: this is the name of the run's own score SDE; choose another name")
        for key in ("seeds", "batch"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; type `{key}`=1")
        if self.count is not None and self.count <= NEIGHBOURS:
            raise ValueError(f"`count`={self.count} must be at least {NEIGHBOURS + 1}; type `count`=1000")

    def check(self, sde: SDE, data: Data) -> None:
        if data.components() is None and getattr(data, "train_labels", None) is None:
            raise ValueError(
                "task=generators counts modes, and these data have neither components nor labels; type "
                "data=8gaussians, data=mixture, data=digits or images with labels"
            )
        for key, part in (("training", data.train), ("held-out", data.test)):
            if len(part) <= NEIGHBOURS:
                raise ValueError(
                    f"{len(part)} {key} data are too few to compare samples with: {NEIGHBOURS + 1} at least"
                )
        if len(data.train) < (count := self.size(data)):
            log.warning(
                "the floor is that of all %s training data, and would be lower for %s of them; type count=%s",
                f"{len(data.train):,}",
                f"{count:,}",
                len(data.train),
            )

    def size(self, data: Data) -> int:
        """Returns the number of samples of each training."""
        return self.count or (10_000 if len(data.shape) == 1 else 1000)

    @property
    def requests(self) -> tuple[str, ...]:
        return ("models", "score") if self.score else ("models",)

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        return (self.sampler,) if self.score else ()  # for other models it draws codes, not data

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        names, networks = [*self.models, *(["score"] if self.score else [])], job.networks.models()
        trained = {f"{name}/{i}": networks[f"{name}/{i}"].model for name in names for i in range(self.seeds)}
        count = self.size(data)
        judge = None if data.components() is not None else Classes(data.train, data.train_labels)
        floor = self.measure(data.train[:count], data, judge)
        modes = len(floor.pop("shares"))
        metrics = {"count": count, "modes": modes, "distance_unit": data.distance_unit}
        if judge is not None and data.test_labels is not None:
            right = judge.predict(data.test[:MEASURED]) == data.test_labels[:MEASURED]
            metrics["classifier_accuracy"] = float(right.double().mean())
        metrics |= {f"floor_{key}": value for key, value in floor.items()}
        table, shown, arrays = {}, {}, {}
        with progress("sampling", len(trained) * count) as advance:
            for k, (label, model) in enumerate(trained.items()):

                def move(first: int, size: int = 0, share: float = 0.0, k: int = k) -> None:
                    advance(k * count + first, size, share)

                name = label.split("/")[0]
                x = self.draw(model, sde, data, count, name == "score", move)
                r = in_data_units(data, x)
                advance((k + 1) * count)
                table.setdefault(name, []).append(self.measure(r, data, judge))
                shown.setdefault(name, r[:SHOWN])
        for name, rows in table.items():
            arrays[name] = torch.stack([row.pop("shares") for row in rows]).numpy()
            metrics |= self.described(name, rows, modes)
        for key in floor:
            arrays[key] = torch.tensor([[row[key] for row in rows] for rows in table.values()]).numpy()
        record.arrays("generators", names=names, **arrays)
        from scoresde.figures.latent import generators

        path = record.path("generators.png")
        real, x = data.test[:SHOWN].numpy(), {name: r.numpy() for name, r in shown.items()}
        record.picture(generators(x, real, table, floor, modes, path, data.levels, data.distance_unit))
        return metrics

    def draw(self, model: Any, sde: SDE, data: Data, count: int, is_score: bool, move: Advance) -> Tensor:
        """Draws samples in model units, (count, *), on the CPU.

        Arguments:
            model: a latent-variable model, or the run's own score if ``is_score``.
            move: moves the progress bar.
        """
        if not is_score:
            return draw(model, self.sampler, count, self.batch, self.seed, move)
        drawing = Drawing(self.sampler, batch=self.batch, seed=self.seed, device=self.device, dtype=self.dtype)
        return drawing.draw(sde, model, data.shape, count, advance=move)

    def measure(self, r: Tensor, data: Data, judge: Classes | None) -> dict[str, Any]:
        """Returns the measures of points r (N, *) in data units by name: the modes that they cover, with the ``shares``
        (K,) of the modes, and their distances from held-out data.

        Arguments:
            judge: assigns classes; None if the modes are components.
        """
        r = r.double()
        if judge is None:
            found: Coverage = mode_coverage(data.encode(r), data.components())
        else:
            found = judge.coverage(r)
        test, x = data.commensurate(data.test), data.commensurate(r)
        row = {"shares": found.shares, "modes_found": found.found, "variation": found.variation}
        if found.good is not None:
            row["good"] = found.good
        row["sliced_wasserstein"] = sliced_wasserstein(x, test)
        row["precision"], row["recall"] = precision_recall(x[:MEASURED], test[:MEASURED], NEIGHBOURS)
        return row

    def described(self, name: str, rows: list[dict], modes: int) -> dict[str, float]:
        """Returns a model's metrics, means over the trainings and their spread.

        Arguments:
            rows: the measures of each training, without ``shares``.
            modes: the number K of modes.
        """
        found = {f"{name}_collapsed_runs": sum(row["modes_found"] < modes for row in rows)}
        for key in rows[0]:
            values = torch.tensor([float(row[key]) for row in rows], dtype=torch.float64)
            found[f"{name}_{key}"] = float(values.mean())
            found[f"{name}_{key}_std"] = float(values.std()) if len(values) > 1 else math.nan
        return found
