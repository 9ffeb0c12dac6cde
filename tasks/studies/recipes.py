"""Recipes of latent-variable models, the key ``task.models``: checks of the recipes, and samples of the trained models.

Tasks request the trained models by ``job.networks.models()``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.samplers import Sampler
from scoresde.tasks.parts.batches import Advance, batches
from scoresde.training import Recipe


def check_recipes(models: Mapping[str, Any]) -> None:
    """Checks a task's key ``models``, recipes by name, before any of them is trained.

    A start is tried on the recipes' untrained models, whose weights change by it.

    Raises:
        ValueError: there are no recipes; an entry is no recipe; a recipe has a loss of another kind of model; or a
            recipe starts from one that does not come before it or does not fit it.
    """
    if not models:
        raise ValueError("`models` is empty; type for example +latent@`models.vae`=vae")
    before: list[str] = []
    for name, recipe in models.items():
        key = f"`models`.{name}"
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
                recipe.model.start_from(models[recipe.start].model)
            except ValueError as error:
                raise ValueError(f"{key}.start={recipe.start}: {error}") from None
        before.append(name)


def draw(model: Any, sampler: Sampler, count: int, batch: int, seed: int, advance: Advance) -> Tensor:
    """Draws samples (count, *) in model units, on the CPU, from a latent-variable model."""
    parts = [
        model.draw(sampler, seed, part.first, part.size, part.on_step).cpu() for part in batches(count, batch, advance)
    ]
    return torch.cat(parts)


def in_data_units(data: Data, x: Tensor) -> Tensor:
    """Converts samples x (N, *) in model units to data units, float64; for integer data to whole numbers, rounded down.

    Raises:
        FloatingPointError: a sample is not finite.
    """
    r = data.decode(x.double())
    if not bool(r.isfinite().all()):
        raise FloatingPointError(
            "samples are not finite; try a smaller task.models.NAME.training.rate, or dtype=float64"
        )
    return r.floor().clamp(0, data.levels - 1) if data.levels else r
