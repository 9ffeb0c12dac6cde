"""Score-based generative models written as SDEs.

    import scoresde
    from scoresde.sde_lib import VP

    sde, score, data = scoresde.load("checkpoints/moons-vp-mlp-0123456789")

The parts are packages: sde_lib, data, metrics, figures, models, training, samplers, likelihood, latent, tasks and conf.
Each is imported when it is first used, so that ``import scoresde`` takes milliseconds and loads no torch.
"""

import importlib
from pathlib import Path
from typing import Any

from .checkout import PACKAGES, find_beside

__all__ = ["load", "run", *PACKAGES]

if not (Path(__file__).parent / PACKAGES[0]).is_dir():  # a checkout, where the packages lie beside this one
    find_beside(Path(__file__).parents[1])


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("load", "run"):
        return getattr(importlib.import_module(f"{__name__}.cli"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("scoresde")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
