r"""The evidence lower bound of latent-variable models on held-out data, term by term, for several models.

.. math:: \log p(x) \ge \mathbb E\log p(x\mid z) - \mathrm{KL}\bigl(q(z\mid x)\,\|\,p(z)\bigr)

The first term is the reconstruction, the second the divergence from the prior (:mod:`scoresde.latent.vae`). Every model
is evaluated at the same points, and models with equally many latents with the same noise, so that the *difference* of
two bounds has a small error of its own: NAME_gain over the first model, NAME_gain_over_OTHER over any other model
before NAME. For a score prior log p(z) is that of the probability flow; the bound by denoising
(NAME_denoising_nll_nats), which is that of its reverse SDE, is reported beside it. For integers the bound is one on
log P, and bits/dim can be compared with those of ``task=likelihood``.
"""

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Likelihood
from scoresde.samplers import Sampler
from scoresde.sde_lib import SDE, BlockNoise
from scoresde.tasks.parts.batches import batches
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.effort import refuse_error
from scoresde.tasks.parts.points import points_of
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.statistics import mean_and_stderr
from scoresde.tasks.task import Job, Task
from scoresde.training import Recipe

from .recipes import check_recipes, in_data_units

SHOWN = 2000  # codes and vectors in the picture


@dataclass(frozen=True)
class Elbo(Task):
    """Compares the evidence lower bounds of latent-variable models; see the module's text.

    Writes elbo.npz and elbo.png.

    Arguments:
        models: recipes of VAEs by name; each is compared with those before it.
        likelihood: how log p(z) of a score prior is computed; it must be a density of the codes as they are, of
            ``start=plain`` and ``prior=standard``.
        sampler: the sampler of the reverse SDE of a score prior, for samples.
        samples: the number of draws of each point's code; more than one give the importance-weighted bound too.
        count: the number of held-out points; None for 10,000 vectors or 256 images, or all where there are fewer.
        points: a file of points in data units to score instead: ``count`` of them, drawn at random, or all.
        batch: the number of points per batch; the results do not depend on it.
        seed: the seed of the codes' noise and of the samples.
        device, dtype: where, and in which precision.
    """

    conditions: ClassVar[str] = "none"
    reports_density: ClassVar[bool] = True
    requests: ClassVar[tuple[str, ...]] = ("models",)

    models: dict[str, Recipe]
    likelihood: Likelihood
    sampler: Sampler
    samples: int = 1
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_recipes(self.models)
        for key in ("samples", "batch"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; type `{key}`=1")
        for key, wanted in (("start", "plain"), ("prior", "standard")):
            if getattr(self.likelihood, key) != wanted:
                raise ValueError(
                    f"`likelihood`.{key}={getattr(self.likelihood, key)} gives no bound on log p; type "
                    f"`likelihood`.{key}={wanted}"
                )
        for name, recipe in self.models.items():
            if not hasattr(recipe.model, "terms"):
                raise ValueError(
                    f"`models`.{name} is a {type(recipe.model).__name__}, which has no bound on log p; type "
                    f"~`models`.{name}, or task=generators to compare samples"
                )

    def check(self, sde: SDE, data: Data) -> None:
        for name, recipe in self.models.items():
            observation = recipe.model.observation
            if data.levels and not observation.integers:
                raise ValueError(
                    f"task.models.{name}.model.observation is a {type(observation).__name__}, a density, and these "
                    f"data are integers: it gives no bound on log P; type "
                    f"latent/observation@task.models.{name}.model.observation=logistic"
                )
        refuse_error(self.likelihood, self)
        points_of(data, self.points, self.count)

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        return ()  # its sampler draws codes, not data

    def __call__(self, job: Job) -> dict:
        data, record = job.data, job.record
        models = {name: network.model for name, network in job.networks.models().items()}
        r = points_of(data, self.points, self.count, quiet=True)
        metrics, arrays, bounds = {"count": len(r)}, {"x": r.numpy()}, {}
        for name, model in models.items():
            started = time.monotonic()
            found = self.score(name, model, data, r)
            for key, values in found.items():
                arrays[f"{name}_{key}"] = values.numpy()
            bounds[name] = found["bound"]
            metrics |= {f"{name}_{key}": value for key, value in self.described(data, found).items()}
            metrics[f"{name}_seconds"] = time.monotonic() - started
        # the differences of bounds
        names = list(models)
        for i, name in enumerate(names):
            for other in names[:i]:
                key = f"{name}_gain" if other == names[0] else f"{name}_gain_over_{other}"
                gain, stderr = mean_and_stderr(bounds[name] - bounds[other])
                metrics |= {f"{key}_nats": gain, f"{key}_stderr": stderr}
                if data.levels:
                    metrics[f"{key}_bits_per_dim"] = data.bits_per_dim(gain)
                    metrics[f"{key}_bits_per_dim_stderr"] = data.bits_per_dim(stderr)
        truth = data.true_log_prob(r)
        if truth is not None:
            metrics["entropy_nats"] = -float(truth.mean())
            for name in models:
                gap, stderr = mean_and_stderr(truth - bounds[name])
                metrics |= {f"{name}_gap_nats": gap, f"{name}_gap_stderr": stderr}
        record.arrays("elbo", **arrays, **columns_of(data))
        self.show(models, data, metrics, record)
        return metrics

    def score(self, name: str, model: Any, data: Data, r: Tensor) -> dict[str, Tensor]:
        """Returns the terms of each of the points r (N, *), (N,) float64, in nats and data units, or of log P for
        integers: reconstruction, divergence, their difference bound, and denoising_bound and importance_bound where
        there are such.
        """
        dtype, parts = getattr(torch, self.dtype), []
        with progress(f"scoring by {name}", len(r)) as advance:
            for batch in batches(len(r), self.batch, advance):
                noise = batch.noise(self.seed, (model.latent,), dtype, self.device, "code")
                level = batch.noise(self.seed, (1,), dtype, self.device, "level")
                x = data.encode(data.dequantise(r[batch.rows], None).double()).to(self.device, dtype)
                terms = model.terms(x, noise, level.uniform, self.likelihood, self.samples, on_step=batch.on_step)
                parts.append(terms)
        jacobian = 0.0 if model.observation.integers else data.log_det

        def joined(key: str) -> Tensor:
            return torch.cat([getattr(part, key).double().cpu() for part in parts])

        reconstruction = joined("reconstruction") + jacobian
        found = {"reconstruction": reconstruction, "divergence": joined("divergence")}
        found["bound"] = reconstruction - found["divergence"]
        if model.prior.blur:
            found["denoising_bound"] = reconstruction - joined("denoising")
        if self.samples > 1:
            found["importance_bound"] = joined("importance") + jacobian
        return found

    def described(self, data: Data, found: dict[str, Tensor]) -> dict[str, float]:
        """Returns a model's metrics, without its name.

        Arguments:
            found: of :meth:`score`.
        """
        metrics = {}
        nll, stderr = mean_and_stderr(-found["bound"])
        if data.levels:
            metrics |= {"bits_per_dim": data.bits_per_dim(nll), "bits_per_dim_stderr": data.bits_per_dim(stderr)}
        metrics |= {"nll_nats": nll, "nll_stderr": stderr}
        for key in ("reconstruction", "divergence"):
            metrics[f"{key}_nats"], metrics[f"{key}_stderr"] = mean_and_stderr(found[key])
        for key in ("denoising", "importance"):
            if f"{key}_bound" in found:
                nll, stderr = mean_and_stderr(-found[f"{key}_bound"])
                metrics |= {f"{key}_nll_nats": nll, f"{key}_nll_stderr": stderr}
                if data.levels:
                    metrics[f"{key}_bits_per_dim"] = data.bits_per_dim(nll)
                    metrics[f"{key}_bits_per_dim_stderr"] = data.bits_per_dim(stderr)
        return metrics

    def show(self, models: dict[str, Any], data: Data, metrics: dict, record: Record) -> None:
        """Draws samples and codes of each model, and the terms of its bound."""
        from scoresde.figures.latent import bounds

        count = 64 if len(data.shape) == 3 else SHOWN
        test, panels = data.test[:SHOWN], {}
        with progress("sampling", SHOWN * len(models)) as advance:
            for k, (name, model) in enumerate(models.items()):

                def on_step(share: float, k: int = k) -> None:
                    advance(k * SHOWN, SHOWN, share)

                z = model.draw_codes(self.sampler, self.seed, 0, SHOWN, on_step)
                if len(data.shape) == 3:  # E[x|z]: p(x|z) is independent per pixel, and its draws are speckled
                    with torch.no_grad():
                        x = model.decode(z[:count]).cpu()
                else:
                    x = model.draw_from(z[:count], self.seed, 0).cpu()
                z = z.cpu()
                advance((k + 1) * SHOWN)
                # the two latents whose mean codes vary most, of data and drawn
                encoded = data.encode(data.dequantise(test, None).double()).to(self.device, getattr(torch, self.dtype))
                noise = BlockNoise(self.seed, 0, len(test), (model.latent,), encoded.dtype, self.device, "shown")
                with torch.no_grad():
                    codes = model.code(encoded, noise()).cpu()
                    spread = model.encode(encoded)[0].var(0, correction=0)
                pair = spread.argsort(descending=True)[:2].sort().values.cpu()
                unit = "bits_per_dim" if data.levels else "nll_nats"
                share = data.bits_per_dim(1.0) if data.levels else 1.0
                terms = [share * metrics[f"{name}_{key}_nats"] for key in ("reconstruction", "divergence")]
                panels[name] = {
                    "samples": in_data_units(data, x[:count]).numpy(),
                    "codes": codes[:, pair].numpy(),
                    "drawn": z[:, pair].numpy(),
                    "bound": metrics[f"{name}_{unit}"],
                    "reconstruction": -terms[0],
                    "divergence": terms[1],
                    "latents": [int(i) for i in pair],
                }
        unit = "bits/dim" if data.levels else "nats"
        record.picture(bounds(panels, data.test[:count].numpy(), record.path("elbo.png"), unit, data.levels))
