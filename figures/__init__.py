r"""The pictures of a run: samples beside data, and measured values beside exact ones.

Every picture is a function of its values (numpy arrays or tensors, or dicts of numbers) and a path; it writes a PNG
there and returns the path. Held-out data are grey and lie beneath, what the model made is blue. Where samples are drawn
with data, frames and colour scales come from the *data* (of points from quantiles), so that a diverged sampler shows:
points outside the frame, infinite ones and NaNs included, are counted in the legend. A pixel that is not finite is red.

Figures are built from ``matplotlib.figure.Figure``: no pyplot, no display, no global state except the style's context.
Pictures of a single task are imported from their own modules: codes, evaluation, failures, interpolation, latent,
memorisation, modes and restored.
"""

if __name__ == "figures":  # a checkout's former name for this package
    from scoresde.checkout import former

    former(__name__)

# ruff: noqa: F401 (names outside __all__ are building blocks for further pictures)

from .averages import average_lengths
from .axes import (
    bins,
    counted,
    dots,
    finite_range,
    histogram,
    legend,
    limits,
    names,
    outside,
    spread,
    ticks,
    time_label,
)
from .canvas import (
    BLUE,
    DENSITY,
    DPI,
    GREY,
    INK,
    LENGTHS,
    PALE,
    RED,
    Array,
    array,
    is_number,
    pixels,
    place,
    save,
    style,
)
from .chain import bit_rows, bound_terms
from .classes import class_grid, class_scatter, classifier_curve
from .images import colours, enlarge, film_strip, image_grid, tile
from .loss import loss_curve, overfitting_curve, series
from .paths import trajectories
from .planar import cells, density, planar_figure, planar_frame, planar_samples, score_field
from .sweep import SUMMARY, job_labels, ok, summary_plot
from .vectors import histogram_1d, pairs
from .work_precision import likelihood_precision, work_precision

__all__ = [
    "average_lengths",
    "bit_rows",
    "bound_terms",
    "class_grid",
    "class_scatter",
    "classifier_curve",
    "density",
    "film_strip",
    "histogram_1d",
    "image_grid",
    "likelihood_precision",
    "loss_curve",
    "overfitting_curve",
    "pairs",
    "planar_samples",
    "score_field",
    "summary_plot",
    "trajectories",
    "work_precision",
]
