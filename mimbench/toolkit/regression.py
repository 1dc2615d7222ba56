"""Logistic regression on standardised features, its regularisation chosen on held-out training images.

scikit-learn takes over a second to import, so the functions that fit import it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mimbench.toolkit.frozen_features import FrozenFeaturesConfig

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline


class RegressionConfig(FrozenFeaturesConfig):
    """How the regression is fitted."""

    inverse_regularisation: tuple[float, ...] = Field((0.01, 0.1, 1.0, 10.0), min_length=1)
    """Values of scikit-learn's C. Of several, the best on held-out images is fitted again on all training images."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Fraction of the training images that are held out to choose C."""
    max_iterations: int = Field(500, ge=1)


@dataclass(frozen=True)
class Regression:
    """A fitted regression and how it was chosen."""

    pipeline: Pipeline
    strength: float
    """The chosen C."""
    held_out: Mapping[float, float]
    """C -> accuracy on held-out training images, 0 to 1; empty if there was nothing to choose."""
    converged: bool

    def details(self) -> dict[str, Any]:
        """The choice and its accuracies, as plain JSON data for `TaskResult.details`."""
        return {
            "inverse_regularisation": self.strength,
            "held_out_top1": {f"{value:g}": 100 * accuracy for value, accuracy in self.held_out.items()},
            "converged": self.converged,
        }


def fit_regression(
    x: np.ndarray, y: np.ndarray, config: RegressionConfig, seed: int, *, measure_held_out: bool = False
) -> Regression:
    """Fit features to labels.

    Args:
        x: training features [N, D].
        y: training labels, int [N].
        seed: of the choice of the held-out images.
        measure_held_out: measure the accuracy on held-out images even if there is only one C, to compare layers by it.
    """
    choices = config.inverse_regularisation
    held_out: dict[float, float] = {}
    if len(choices) > 1 or measure_held_out:
        held_out = _held_out_accuracies(x, y, config, seed)
    strength = max(held_out, key=lambda choice: held_out[choice]) if held_out else choices[0]
    pipeline, converged = _fit(x, y, strength, config.max_iterations)
    return Regression(pipeline, strength, held_out, converged)


def logistic_regression(strength: float, iterations: int) -> LogisticRegression:
    """An unfitted model with the tolerance that every built-in task uses; `strength` is scikit-learn's C."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=iterations, tol=1e-3)


def fit_without_warning(model: Pipeline | LogisticRegression, x: np.ndarray, y: np.ndarray) -> None:
    """Fit `model`. No warning is printed if it does not converge; `n_iter_` shows that."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)


def _held_out_accuracies(x: np.ndarray, y: np.ndarray, config: RegressionConfig, seed: int) -> dict[float, float]:
    """C -> accuracy on held-out training images, 0 to 1."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y, return_counts=True)
    held = max(1, round(config.held_out * len(y)))
    # Stratifying needs two images of each class, and room for every class in both parts.
    can_stratify = counts.min() > 1 and min(held, len(y) - held) >= len(classes)
    fit_x, held_x, fit_y, held_y = train_test_split(
        x, y, test_size=held, random_state=seed, stratify=y if can_stratify else None
    )
    accuracies = {}
    for choice in config.inverse_regularisation:
        pipeline, _ = _fit(fit_x, fit_y, choice, config.max_iterations)
        accuracies[choice] = float(pipeline.score(held_x, held_y))
    return accuracies


def _fit(x: np.ndarray, y: np.ndarray, strength: float, iterations: int) -> tuple[Pipeline, bool]:
    """The fitted pipeline, and whether it converged."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), logistic_regression(strength, iterations))
    fit_without_warning(pipeline, x, y)
    return pipeline, bool((pipeline[-1].n_iter_ < iterations).all())
