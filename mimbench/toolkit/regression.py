"""Logistic regression on standardised features, its regularisation chosen on held-out training images.

scikit-learn takes over a second to import, so the functions that fit import it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field

from mimbench.contract import TaskContext, added, cosmetic
from mimbench.engine.ranks import on_first_rank
from mimbench.toolkit.frozen_features import FrozenFeaturesConfig, FrozenFeaturesTask
from mimbench.toolkit.torch_regression import fit_in_torch

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

Solver = Literal["auto", "sklearn", "torch"]
CPU = torch.device("cpu")
_TOLERANCE = 1e-3


class Classifier(Protocol):
    """A fitted classifier with the methods of scikit-learn's."""

    @property
    def classes_(self) -> np.ndarray:
        """Labels of the training images, sorted, [K]."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Features [N, D] -> labels [N]."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Features [N, D] -> probabilities [N, K]."""

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        """Accuracy, 0 to 1."""


def pick_solver(choice: Solver, device: torch.device) -> Literal["sklearn", "torch"]:
    """The configured solver; "auto" is torch on a GPU, and scikit-learn on the CPU."""
    if choice != "auto":
        return choice
    return "torch" if device.type == "cuda" else "sklearn"


def solver_protocol(choice: Solver, device: torch.device) -> dict[str, str]:
    """What the protocol says of the solver, for `Task.protocol_on`: {} for scikit-learn, which is the reference.

    Both minimise the same function with the same optimizer; scores may differ by rounding.
    """
    solver = pick_solver(choice, device)
    return {} if solver == "sklearn" else {"solver": solver}


class RegressionConfig(FrozenFeaturesConfig):
    """How the regression is fitted."""

    solver: Solver = cosmetic("auto")
    """auto: torch on a GPU, scikit-learn on the CPU. The protocol says so if it is torch."""

    inverse_regularisation: tuple[float, ...] = Field((0.01, 0.1, 1.0, 10.0), min_length=1)
    """Values of scikit-learn's C. Of several, the best on held-out images is fitted again on all training images."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Fraction of the training images that are held out to choose C."""
    max_iterations: int = Field(500, ge=1)
    tolerance: float = added(_TOLERANCE, gt=0, le=_TOLERANCE)
    """Largest component of the gradient at which a fit is done (scikit-learn's tol). Below the default, scikit-learn
    computes in float64, since float32 has no such gradients."""


class RegressionTask(FrozenFeaturesTask):
    """A task that fits logistic regressions to frozen features. A subclass defines `run`."""

    config: RegressionConfig

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return solver_protocol(self.config.solver, device)

    @on_first_rank
    def fit(
        self, x: np.ndarray, labels: np.ndarray, context: TaskContext, config: RegressionConfig | None = None
    ) -> Regression:
        """A regression on features [N, D] and labels [N]. The first process fits it for all.

        Args:
            config: how; None: by the task's options.
        """
        return fit_regression(x, labels, config or self.config, context.seed, device=context.device)


@dataclass(frozen=True)
class Regression:
    """A fitted regression and how it was chosen."""

    classifier: Classifier
    strength: float
    """The chosen C."""
    held_out: Mapping[float, float]
    """C -> accuracy on held-out training images, 0 to 1; empty if there was nothing to choose."""
    converged: bool
    solver: Literal["sklearn", "torch"] = "sklearn"

    def details(self) -> dict[str, Any]:
        """The choice and its accuracies, as plain JSON data for `TaskResult.details`."""
        return {
            "inverse_regularisation": self.strength,
            "held_out_top1": {f"{value:g}": 100 * accuracy for value, accuracy in self.held_out.items()},
            "converged": self.converged,
            "solver": self.solver,
        }


def fit_regression(
    x: np.ndarray,
    y: np.ndarray,
    config: RegressionConfig,
    seed: int,
    *,
    measure_held_out: bool = False,
    device: torch.device = CPU,
) -> Regression:
    """Fit features to labels.

    Args:
        x: training features [N, D].
        y: training labels, int [N].
        seed: of the choice of the held-out images.
        measure_held_out: measure the accuracy on held-out images even if there is only one C, to compare layers by it.
        device: of the fit, if the solver is torch.
    """
    choices, solver = config.inverse_regularisation, pick_solver(config.solver, device)
    held_out: dict[float, float] = {}
    if len(choices) > 1 or measure_held_out:
        fit_rows, held_rows = _held_out_rows(y, config.held_out, seed)
        held_x, held_y = x[held_rows], y[held_rows]
        if solver == "torch":
            rows = np.sort(fit_rows)  # a memory map is read in its order
            fitted = fit_in_torch(x, y, choices, config.max_iterations, device, rows=rows, tolerance=config.tolerance)
            held_out = {choice: one.score(held_x, held_y) for choice, one in zip(choices, fitted, strict=True)}
        else:
            fit_x, fit_y = x[fit_rows], y[fit_rows]
            for choice in choices:
                pipeline, _ = _fit(fit_x, fit_y, choice, config)
                held_out[choice] = float(pipeline.score(held_x, held_y))
    strength = max(held_out, key=lambda choice: held_out[choice]) if held_out else choices[0]
    if solver == "torch":
        (classifier,) = fit_in_torch(x, y, [strength], config.max_iterations, device, tolerance=config.tolerance)
        return Regression(classifier, strength, held_out, classifier.converged, solver)
    pipeline, converged = _fit(x, y, strength, config)
    return Regression(pipeline, strength, held_out, converged)


def fit_standardised(
    x: np.ndarray, y: np.ndarray, strength: float, iterations: int, solver: Solver, device: torch.device
) -> Classifier:
    """Logistic regression with one C, on features that are standardised already.

    Args:
        x: training features [N, D].
        y: training labels, int [N].
        strength: scikit-learn's C.
        iterations: of the optimizer, at most.
        solver: as in RegressionConfig.
        device: of the fit, if the solver is torch.
    """
    if pick_solver(solver, device) == "torch":
        return fit_in_torch(x, y, [strength], iterations, device, is_scaled=True)[0]
    model = _logistic_regression(strength, iterations)
    _fit_without_warning(model, x, y)
    return model


def _logistic_regression(strength: float, iterations: int, tolerance: float = _TOLERANCE) -> LogisticRegression:
    """An unfitted model; `strength` is scikit-learn's C."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=iterations, tol=tolerance)


def _fit_without_warning(model: Pipeline | LogisticRegression, x: np.ndarray, y: np.ndarray) -> None:
    """Fit `model`. No warning is printed if it does not converge; `n_iter_` shows that."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)


def _held_out_rows(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images to fit, and of those to choose C on, in random order."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y, return_counts=True)
    held = max(1, round(fraction * len(y)))
    # Stratifying needs two images of each class, and room for every class in both parts.
    can_stratify = counts.min() > 1 and min(held, len(y) - held) >= len(classes)
    fit_rows, held_rows = train_test_split(
        np.arange(len(y)), test_size=held, random_state=seed, stratify=y if can_stratify else None
    )
    return fit_rows, held_rows


def _fit(x: np.ndarray, y: np.ndarray, strength: float, config: RegressionConfig) -> tuple[Pipeline, bool]:
    """The fitted pipeline, and whether it converged."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = _logistic_regression(strength, config.max_iterations, config.tolerance)
    pipeline = make_pipeline(StandardScaler(), model)
    _fit_without_warning(pipeline, x if config.tolerance == _TOLERANCE else x.astype(np.float64), y)
    return pipeline, bool((pipeline[-1].n_iter_ < config.max_iterations).all())
