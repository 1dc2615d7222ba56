"""A head on images that are balanced over the groups: deep feature reweighting (arXiv:2204.02937)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mimbench_tasks.group_robustness.groups import Groups

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
"""Values of scikit-learn's C that the balanced head chooses from: PolinaKirichenko/deep_feature_reweighting@9d8d5de
dfr_evaluate_spurious.py."""


def balanced_answers(
    x: np.ndarray, groups: Groups, unseen: np.ndarray, fits: int, seed: int
) -> tuple[np.ndarray, float]:
    """Classes of `unseen` images [M, D] by a head on equally many images of each group, int [M], and the chosen C.

    Args:
        x: features of the images to fit, [N, D].
    """
    from sklearn.preprocessing import StandardScaler  # takes a second to import

    scaler = StandardScaler().fit(x)
    x, unseen = scaler.transform(x), scaler.transform(unseen)
    rng = np.random.RandomState([seed, 0])
    members = {group: rng.permutation(places) for group, places in groups.members().items()}
    first = {group: places[: len(places) // 2] for group, places in members.items()}
    second = np.concatenate([places[len(places) // 2 :] for places in members.values()])
    of_second = Groups(groups.labels[second], groups.attribute[second])
    rows = _equal_numbers(rng, first)

    def worst(strength: float) -> float:
        model = _sparse_regression(x[rows], groups.labels[rows], strength)
        hits = model.predict(x[second]) == of_second.labels
        return min(float(hits[places].mean()) for places in of_second.members().values())

    strength = max(STRENGTHS, key=worst)
    models = []
    for _ in range(fits):
        rows = _equal_numbers(rng, members)
        models.append(_sparse_regression(x[rows], groups.labels[rows], strength))
    # The mean of the scores of linear heads is the score of the mean head.
    mean = np.mean([model.decision_function(unseen) for model in models], axis=0)
    chosen = (mean > 0).astype(int) if mean.ndim == 1 else mean.argmax(1)
    return models[0].classes_[chosen], strength


def _equal_numbers(rng: np.random.RandomState, members: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """Positions of equally many images of each group, as many as the smallest has."""
    smallest = min(len(places) for places in members.values())
    return np.concatenate([rng.permutation(places)[:smallest] for places in members.values()])


def _sparse_regression(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
    """L1 logistic regression, one class against the rest if there are more than two."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model: Any = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", random_state=0)
    if len(np.unique(y)) > 2:
        model = OneVsRestClassifier(model)
    with warnings.catch_warnings():
        # The published head does not wait for convergence either.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)
