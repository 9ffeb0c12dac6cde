"""The style of all pictures and the colours that they share, axes placed on whole pixels, and saving."""

from numbers import Real
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

DPI = 200
INK, GREY, PALE, BLUE, RED = "#262626", "#8c8c8c", "#c9c9c9", "#2a6fb0", "#c8452f"
DENSITY = "magma"  # the colour map of densities: its lightness grows evenly
# the colour map of arrows: the part of it that shows on white
LENGTHS = ListedColormap(matplotlib.colormaps[DENSITY](np.linspace(0.08, 0.84, 256)))

Array = np.ndarray | torch.Tensor


def style() -> Any:
    """Returns the style of every picture, as a context or a decorator."""
    return matplotlib.rc_context(
        {
            "figure.facecolor": "white",
            "font.family": "DejaVu Sans",
            "font.size": 8,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.6,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.titlepad": 6,
            "axes.formatter.limits": (-4, 5),
            "axes.formatter.use_mathtext": True,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "grid.color": "#e8e8e8",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "legend.handlelength": 1.4,
            "legend.borderaxespad": 0.2,
        }
    )


def array(values: Any) -> np.ndarray:
    """Returns numbers of any type, on any device, as a numpy array: of float32 or float64 as they are, tensors of other
    types of float32, all others of float64.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.double() if values.dtype == torch.float64 else values.float()
    values = np.asarray(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def is_number(value: Any) -> bool:
    """Returns whether a value is a real number, finite or not; a boolean is not one."""
    return isinstance(value, Real) and not isinstance(value, bool)


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure as a PNG and returns the path; the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return path


def pixels(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in pixels."""
    return Figure(figsize=(round(width) / DPI, round(height) / DPI), dpi=DPI)


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes at a place in pixels from the lower left, rounded to whole pixels, so that an image of that size is
    shown pixel by pixel.
    """
    wide, tall = np.round(figure.get_size_inches() * DPI)
    return figure.add_axes((round(left) / wide, round(bottom) / tall, round(width) / wide, round(height) / tall))
