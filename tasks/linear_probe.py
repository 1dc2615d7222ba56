"""Linear probe: logistic regression on frozen features."""

from __future__ import annotations

import warnings
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mimbench.contract import (
    Dataset,
    Encoder,
    ImageSplit,
    InputError,
    Measured,
    Metric,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
)


class LinearProbeConfig(TaskConfig):
    """Features are standardised; the regularisation is chosen on a held-out part of the training set."""

    layer: int = -1
    """Depth of the features; -1 is the last, after the final norm."""
    pooling: Literal["mean", "token", "mean+token"] = "mean"
    inverse_regularisation: tuple[float, ...] = Field((0.01, 0.1, 1.0, 10.0), min_length=1)
    """scikit-learn's C; where there are several, the best on the held-out part is refitted on everything."""
    held_out: float = Field(0.2, gt=0, lt=1)
    max_iterations: int = Field(500, ge=1)


class LinearProbe(Task):
    """Top-1 accuracy of a linear classifier on frozen features, protocol "cached-lbfgs"."""

    name: ClassVar[str] = "linear-probe"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1", "percent", 0.0, 100.0),
        Metric("top5", "percent", 0.0, 100.0),
    )
    Config = LinearProbeConfig
    config: LinearProbeConfig

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        train, test = _labelled(dataset, "train"), _labelled(dataset, "test")
        context.say(f"linear-probe: probing {len(train):,} training and {len(test):,} test images")
        features = partial(context.features, layer=self.config.layer, pooling=self.config.pooling)
        train_x, test_x = features(train, "train").numpy(), features(test, "test").numpy()
        train_y = train.labels.numpy()
        strength, held_out = self._choose(train_x, train_y, context.seed)
        probe, converged = self._fit(train_x, train_y, strength)
        scores = _scores(probe, test_x, len(train.classes))
        test_y = test.labels.numpy()
        return TaskResult(
            metrics={
                "top1": Measured(100 * float(np.mean(scores.argmax(1) == test_y)), len(test_y)),
                "top5": Measured(100 * _top5(test_y, scores), len(test_y)),
            },
            details={
                "inverse_regularisation": strength,
                "held_out_top1": {f"{value:g}": 100 * accuracy for value, accuracy in held_out.items()},
                "converged": converged,
                "feature_dim": int(train_x.shape[1]),
            },
        )

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        _labelled(dataset, "train")
        _labelled(dataset, "test")
        if not -encoder.num_layers <= self.config.layer < encoder.num_layers:
            raise InputError(f"task.layer {self.config.layer} is outside the encoder's {encoder.num_layers} layers")
        if self.config.pooling != "mean" and not encoder.num_prefix_tokens:
            raise InputError(
                f"task.pooling {self.config.pooling!r} needs a class token, which a {encoder.kind} encoder lacks"
            )

    def chance(self, dataset: Dataset) -> float:
        """Always answering the most frequent class of the training set, percent of the test set."""
        train, test = _labelled(dataset, "train"), _labelled(dataset, "test")
        return 100 * float(np.mean(test.labels.numpy() == np.bincount(train.labels.numpy()).argmax()))

    def _choose(self, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, dict[float, float]]:
        choices = self.config.inverse_regularisation
        if len(choices) == 1:
            return choices[0], {}
        classes, counts = np.unique(y, return_counts=True)
        held = max(1, round(self.config.held_out * len(y)))
        possible = counts.min() > 1 and min(held, len(y) - held) >= len(classes)
        fit_x, held_x, fit_y, held_y = train_test_split(
            x, y, test_size=held, random_state=seed, stratify=y if possible else None
        )
        held_out = {choice: float(self._fit(fit_x, fit_y, choice)[0].score(held_x, held_y)) for choice in choices}
        return max(held_out, key=lambda choice: held_out[choice]), held_out

    def _fit(self, x: np.ndarray, y: np.ndarray, strength: float) -> tuple[Pipeline, bool]:
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=self.config.max_iterations, tol=1e-3)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(x, y)
        return probe, bool((probe[-1].n_iter_ < self.config.max_iterations).all())


def _labelled(dataset: Dataset, name: Literal["train", "test"]) -> ImageSplit:
    split = dataset.split(name)
    if not isinstance(split, ImageSplit) or len(split.labels.unique()) < 2:
        raise InputError(f"linear-probe needs two or more labelled classes; the {name} split of the dataset has not")
    return split


def _scores(probe: Pipeline, x: np.ndarray, classes: int) -> np.ndarray:
    """[N, classes] probabilities; classes that training never saw get 0."""
    scores = np.zeros((len(x), classes))
    scores[:, probe[-1].classes_] = probe.predict_proba(x)
    return scores


def _top5(labels: np.ndarray, scores: np.ndarray) -> float:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.mean((best == labels[:, None]).any(axis=1)))
