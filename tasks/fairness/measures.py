"""Accuracy by group, differences of groups, and equalised odds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mimbench.api import Measured

DRAWS = 1000
"""Draws of the bootstrap."""


def group_accuracies(hits: np.ndarray, groups: np.ndarray) -> dict[int, float]:
    """Accuracy in percent by group. hits: bool [N]; groups: int [N]."""
    return {group: 100 * float(hits[groups == group].mean()) for group in np.unique(groups).tolist()}


def difference(accuracies: Mapping[int, float], reference: int) -> float:
    """Accuracy of the reference group minus the mean of the other groups, points."""
    return accuracies[reference] - float(np.mean([value for group, value in accuracies.items() if group != reference]))


def difference_by_sample(hits: np.ndarray, groups: np.ndarray, reference: int) -> np.ndarray:
    """float64 [N], points: its mean is `difference`, and its spread is that of the difference over other images.

    An image adds its deviation from the accuracy of its group, weighted by the inverse of the group's share. So the
    sizes of the groups, which are fixed, add nothing to the spread.
    """
    accuracies = group_accuracies(hits, groups)
    others = len(accuracies) - 1
    values = np.full(len(hits), difference(accuracies, reference))
    for group, accuracy in accuracies.items():
        of_group = groups == group
        sign = 1.0 if group == reference else -1.0 / others
        values[of_group] += sign * (100.0 * hits[of_group] - accuracy) / of_group.mean()
    return values


def equalised_odds(answers: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Difference in equalised odds, percent: 0 if errors of each kind are equally frequent in all groups.

    For a class it is the larger one of two differences between the highest and the lowest group: in the rate at which
    images of the class are recognised, and in the rate at which others are taken for it (arXiv:1610.02413). The result
    is the mean over the classes. With two classes it is that of either.

    Args:
        answers, labels, groups: int [N].
    """
    of_classes = []
    for label in np.unique(labels).tolist():
        spreads = []
        for kind in (labels == label, labels != label):
            rates = [
                np.mean(answers[kind & (groups == group)] == label)
                for group in np.unique(groups)
                if (kind & (groups == group)).any()
            ]
            spreads.append(float(max(rates) - min(rates)) if rates else 0.0)
        of_classes.append(max(spreads))
    return 100 * float(np.mean(of_classes))


def measure(
    answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, reference: int, seed: int
) -> tuple[dict[str, Measured], dict[str, list[float]]]:
    """Metrics, and their 95 % intervals by a bootstrap of the images of each group.

    Args:
        answers: classes that a head gives the test images, int [N].
        labels, groups: of the test images, int [N].
        reference: the group that others are compared with.
    """
    hits = answers == labels
    sizes = {group: int((groups == group).sum()) for group in np.unique(groups).tolist()}

    def values(rows: np.ndarray) -> dict[str, float]:
        accuracies = group_accuracies(hits[rows], groups[rows])
        return {
            "difference": difference(accuracies, reference),
            "gap": max(accuracies.values()) - min(accuracies.values()),
            "worst_group": min(accuracies.values()),
            "group_mean": float(np.mean(list(accuracies.values()))),
            "equalised_odds": equalised_odds(answers[rows], labels[rows], groups[rows]),
        }

    measured = values(np.arange(len(hits)))
    rng, drawn = np.random.RandomState(seed), []
    places = [np.flatnonzero(groups == group) for group in sizes]
    for _ in range(DRAWS):
        drawn.append(values(np.concatenate([rng.choice(one, len(one)) for one in places])))
    accuracies = group_accuracies(hits, groups)
    smallest = sizes[min(accuracies, key=lambda group: accuracies[group])]
    return (
        {name: Measured(value, smallest if name == "worst_group" else len(hits)) for name, value in measured.items()},
        {name: np.percentile([one[name] for one in drawn], [2.5, 97.5]).tolist() for name in measured},
    )
