"""A density estimator of scikit-learn."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .fitting import fit
from .model import Model

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn before 1.6

    def validate_data(estimator: BaseEstimator, X: Any, **keys: Any) -> np.ndarray:
        return estimator._validate_data(X, **keys)


class ScoreDensity(DensityMixin, BaseEstimator):
    """The density of vectors by a score model: an estimator with the methods of
    :class:`sklearn.neighbors.KernelDensity`.

    It works in a Pipeline, in GridSearchCV and in cross_val_score; nothing is written to the disk.

    Parameters:
        sde: a choice of the command line's group ``sde``, or an SDE.
        steps: the number of updates of the training.
        sampler: a choice of the group ``sampler``, or a sampler.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        overrides: further choices and keys of the command line, ``["training.vectors.batch=512"]``.
        random_state: the seed of the training: an int, a RandomState, or None for numpy's global generator.
        verbose: whether the training shows a progress bar.

    Attributes:
        model_: the fitted :class:`scoresde.Model`.
        n_features_in_, feature_names_in_: the number of columns, and their names if fitted on a data frame.
    """

    def __init__(
        self,
        sde: Any = "vp",
        steps: int = 3000,
        sampler: Any = "auto",
        device: str = "auto",
        overrides: Any = (),
        random_state: Any = 0,
        verbose: bool = False,
    ):
        self.sde, self.steps, self.sampler, self.device = sde, steps, sampler, device
        self.overrides, self.random_state, self.verbose = overrides, random_state, verbose

    def fit(self, X: Any, y: Any = None) -> "ScoreDensity":
        """Trains the network on rows X (N, D); y is ignored."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        self.model_: Model = fit(
            X,
            sde=self.sde,
            steps=self.steps,
            seed=seed_of(self.random_state),
            device=self.device,
            overrides=self.overrides,
            verbose=self.verbose,
        )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Returns the log-density of each row of X in nats, (N,) float64; it does not depend on the other rows."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self.model_.log_prob(X, dtype="float64")  # in float32 rounding would depend on the batch

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the total log-likelihood of the rows of X in nats; y is ignored."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws rows, (n_samples, D); ``random_state`` is the seed of the noise, by default 0."""
        check_is_fitted(self)
        return self.model_.sample(n_samples, self.sampler, seed=0 if random_state is None else seed_of(random_state))


def seed_of(state: Any) -> int:
    """Returns a random_state of scikit-learn as a seed: a whole number as it is."""
    return int(state) if isinstance(state, int | np.integer) else int(check_random_state(state).randint(2**31 - 1))
