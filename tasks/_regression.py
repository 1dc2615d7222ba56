"""Logistic regression on standardised features, its regularisation chosen on a held-out part of the training set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mimbench_tasks._frozen import FrozenConfig


class RegressionConfig(FrozenConfig):
    """How it is fitted."""

    inverse_regularisation: tuple[float, ...] = Field((0.01, 0.1, 1.0, 10.0), min_length=1)
    """scikit-learn's C; where there are several, the best on the held-out part is refitted on everything."""
    held_out: float = Field(0.2, gt=0, lt=1)
    max_iterations: int = Field(500, ge=1)


@dataclass(frozen=True)
class Regression:
    """A fitted one."""

    pipeline: Pipeline
    strength: float
    held_out: Mapping[float, float]
    """Accuracy on held-out training images by regularisation, where it was measured."""
    converged: bool

    def details(self) -> dict[str, Any]:
        """What was chosen and how it went, as plain JSON data."""
        return {
            "inverse_regularisation": self.strength,
            "held_out_top1": {f"{value:g}": 100 * accuracy for value, accuracy in self.held_out.items()},
            "converged": self.converged,
        }


def regress(x: np.ndarray, y: np.ndarray, config: RegressionConfig, seed: int, *, rank: bool = False) -> Regression:
    """Fit features [N, D] to labels [N]; `rank`: measure on held-out images even where there is nothing to choose."""
    choices, held_out = config.inverse_regularisation, {}
    if len(choices) > 1 or rank:
        held_out = _held_out(x, y, config, seed)
    strength = max(held_out, key=lambda choice: held_out[choice]) if held_out else choices[0]
    pipeline, converged = _fit(x, y, strength, config.max_iterations)
    return Regression(pipeline, strength, held_out, converged)


def _held_out(x: np.ndarray, y: np.ndarray, config: RegressionConfig, seed: int) -> dict[float, float]:
    classes, counts = np.unique(y, return_counts=True)
    held = max(1, round(config.held_out * len(y)))
    possible = counts.min() > 1 and min(held, len(y) - held) >= len(classes)
    fit_x, held_x, fit_y, held_y = train_test_split(
        x, y, test_size=held, random_state=seed, stratify=y if possible else None
    )
    return {
        choice: float(_fit(fit_x, fit_y, choice, config.max_iterations)[0].score(held_x, held_y))
        for choice in config.inverse_regularisation
    }


def _fit(x: np.ndarray, y: np.ndarray, strength: float, iterations: int) -> tuple[Pipeline, bool]:
    pipeline = make_pipeline(StandardScaler(), logistic(strength, iterations))
    fit_quietly(pipeline, x, y)
    return pipeline, bool((pipeline[-1].n_iter_ < iterations).all())


def logistic(strength: float, iterations: int) -> LogisticRegression:
    """As every task fits it; `strength` is scikit-learn's C."""
    return LogisticRegression(C=strength, max_iter=iterations, tol=1e-3)


def fit_quietly(model: Pipeline | LogisticRegression, x: np.ndarray, y: np.ndarray) -> None:
    """Fit without a warning where it does not converge; `n_iter_` tells that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
