"""Score-based generative models written as SDEs.

    import scoresde

    model = scoresde.fit(x, sde="vp", steps=3000)     # an array, a data frame, a path or a data set
    model.sample(1000)                                # in the units of x
    model.log_prob(x)                                 # nats

The parts are packages: sde_lib, data, metrics, figures, models, training, samplers, likelihood, latent, tasks and conf.
Each is imported when it is first used, so that ``import scoresde`` takes milliseconds and loads no torch.
"""

import importlib
from pathlib import Path
from typing import Any

from .checkout import PACKAGES, find_beside

PUBLIC = {"fit": "fitting", "load": "loading", "run": "cli", "Model": "model", "ScoreDensity": "estimator"}
"""The module of each public name."""

__all__ = [*PUBLIC, *PACKAGES]

if not (Path(__file__).parent / PACKAGES[0]).is_dir():  # a checkout, where the packages lie beside this one
    find_beside(Path(__file__).parents[1])


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("scoresde")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
