"""Accuracy by group, differences of groups, and equalised odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimbench.api import Measured, bootstrap_intervals

EXCHANGES = 200
"""Draws of `equalised_odds_if_equal`."""


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


@dataclass(frozen=True)
class _Counts:
    """Numbers of images by group and class, int64 [G, C]."""

    right: np.ndarray
    """Of the class, and recognised."""
    of_class: np.ndarray
    answered: np.ndarray
    """Taken for the class, rightly or not."""

    @classmethod
    def of_groups(cls, groups: Sequence[tuple[np.ndarray, np.ndarray]], classes: int) -> _Counts:
        """From the answers and the labels of each group, int [N] each."""
        counted = [
            [np.bincount(of_group, minlength=classes) for of_group in (labels[answers == labels], labels, answers)]
            for answers, labels in groups
        ]
        return cls(*(np.stack(column) for column in zip(*counted, strict=True)))

    def accuracies(self) -> np.ndarray:
        """Percent, float64 [G]."""
        return 100 * (self.right.sum(1) / self.of_class.sum(1))

    def equalised_odds(self) -> float:
        rest = self.of_class.sum(1, keepdims=True) - self.of_class
        spreads = np.maximum(_spreads(self.right, self.of_class), _spreads(self.answered - self.right, rest))
        return 100 * float(spreads[self.of_class.any(0)].mean())


def _spreads(numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Highest minus lowest rate of the groups that have images, by class, float64 [C]. Arguments are [G, C]."""
    rates, is_known = numbers / np.maximum(sizes, 1), sizes > 0
    spreads = np.where(is_known, rates, -np.inf).max(0) - np.where(is_known, rates, np.inf).min(0)
    return np.where(is_known.any(0), spreads, 0.0)


def equalised_odds(answers: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Difference in equalised odds, percent: 0 if errors of each kind are equally frequent in all groups.

    For a class it is the larger one of two differences between the highest and the lowest group: in the rate at which
    images of the class are recognised, and in the rate at which others are taken for it (arXiv:1610.02413). The result
    is the mean over the classes. With two classes it is that of either.

    Args:
        answers, labels, groups: int [N].
    """
    rows = [groups == group for group in np.unique(groups)]
    return _Counts.of_groups([(answers[row], labels[row]) for row in rows], _classes(answers, labels)).equalised_odds()


def equalised_odds_if_equal(answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    """The difference in equalised odds, percent, that chance makes of these answers if groups do not differ.

    It is the mean of a largest difference, so it is above 0. Groups are exchanged at random between images of a class.

    Args:
        answers, labels, groups: int [N].

    Returns:
        "mean" and "std" over 200 exchanges.
    """
    rng = np.random.RandomState(seed)
    of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    values = []
    for _ in range(EXCHANGES):
        exchanged = groups.copy()
        for rows in of_classes:
            exchanged[rows] = groups[rng.permutation(rows)]
        values.append(equalised_odds(answers, labels, exchanged))
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _classes(answers: np.ndarray, labels: np.ndarray) -> int:
    return 1 + int(max(answers.max(), labels.max()))


def measure(
    answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, reference: int, seed: int
) -> tuple[dict[str, Measured], dict[str, list[float]]]:
    """Metrics, and their 95 % intervals by a bootstrap of the images of each group.

    Args:
        answers: classes that a head gives the test images, int [N].
        labels, groups: of the test images, int [N].
        reference: the group that others are compared with.
    """
    names, classes = np.unique(groups).tolist(), _classes(answers, labels)
    of_groups = [(answers[row], labels[row]) for row in (groups == name for name in names)]
    sizes = [len(one) for one, _ in of_groups]

    def values(places: Sequence[np.ndarray]) -> dict[str, float]:
        drawn = [(one[rows], two[rows]) for (one, two), rows in zip(of_groups, places, strict=True)]
        counts = _Counts.of_groups(drawn, classes)
        accuracies = dict(zip(names, counts.accuracies().tolist(), strict=True))
        return {
            "difference": difference(accuracies, reference),
            "gap": max(accuracies.values()) - min(accuracies.values()),
            "worst_group": min(accuracies.values()),
            "group_mean": float(np.mean(list(accuracies.values()))),
            "equalised_odds": counts.equalised_odds(),
        }

    measured = values([np.arange(size) for size in sizes])
    accuracies = group_accuracies(answers == labels, groups)
    smallest = sizes[names.index(min(accuracies, key=lambda group: accuracies[group]))]
    return (
        {name: Measured(value, smallest if name == "worst_group" else len(labels)) for name, value in measured.items()},
        bootstrap_intervals(values, sizes, seed),
    )
