"""Latent-variable models by recipes, ``job.networks.models()``: checks of the recipes, and samples."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.samplers import Sampler
from scoresde.tasks.parts.batches import Advance, batches
from scoresde.training import Recipe


def check_recipes(models: Mapping[str, Any]) -> None:
    """Raises a ValueError unless there are recipes, each with a loss of its kind of model, and each that starts from
    another comes after it and fits it: before any is trained. Leaves the weights of its models changed.
    """
    if not models:
        raise ValueError("task.models is empty; type for example +latent@task.models.vae=vae")
    before: list[str] = []
    for name, recipe in models.items():
        key = f"task.models.{name}"
        if not isinstance(recipe, Recipe):
            raise ValueError(f"{key} must be a recipe; type latent@{key}=vae")
        loss, kind = recipe.training.loss, type(recipe.model).__name__
        if not isinstance(recipe.model, getattr(loss, "of", ())):
            raise ValueError(f"{key}.training.loss: {type(loss).__name__} is no loss of a {kind}")
        if recipe.start is not None:
            if recipe.start not in before:
                raise ValueError(
                    f"{key}.start={recipe.start} is none of the models before it "
                    f"({', '.join(before) or 'there are none'})"
                )
            try:
                recipe.model.begin(models[recipe.start].model)
            except ValueError as error:
                raise ValueError(f"{key}.start={recipe.start}: {error}") from None
        before.append(name)


def draw(model: Any, sampler: Sampler, count: int, batch: int, seed: int, advance: Advance) -> Tensor:
    """Samples (N, *) in model units, on the CPU, from a latent-variable model."""
    parts = [
        model.draw(sampler, seed, part.first, part.size, part.on_step).cpu() for part in batches(count, batch, advance)
    ]
    return torch.cat(parts)


def in_data_units(data: Data, x: Tensor) -> Tensor:
    """Samples in model units as the data are: integers where the data are, float64."""
    r = data.decode(x.double())
    if not bool(r.isfinite().all()):
        raise FloatingPointError(
            "samples are not finite; try a smaller task.models.NAME.training.rate, or dtype=float64"
        )
    return r.floor().clamp(0, data.levels - 1) if data.levels else r
