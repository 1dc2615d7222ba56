"""Groups of images by class and attribute, and a classifier's accuracy in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mimbench.api import GroupedSamples, Measured


@dataclass(frozen=True)
class Groups:
    """Images by class and attribute."""

    labels: np.ndarray
    """int [N], as `attribute`."""
    attribute: np.ndarray

    def members(self) -> dict[tuple[int, int], np.ndarray]:
        """(class, attribute) -> positions of the images; groups without images are left out."""
        pairs = sorted(set(zip(self.labels.tolist(), self.attribute.tolist(), strict=True)))
        return {(c, a): np.flatnonzero((self.labels == c) & (self.attribute == a)) for c, a in pairs}

    def by_group(self, hits: np.ndarray) -> GroupedSamples:
        """Which images are right, bool [N], with the group of each."""
        groups = np.empty(len(hits), np.int64)
        for number, places in enumerate(self.members().values()):
            groups[places] = number
        return GroupedSamples(hits, groups)


def aligned_attributes(seen: Groups) -> dict[int, int]:
    """Class -> the attribute that is most over-represented in it: of highest P(attribute | class) / P(attribute)."""
    share = {a: float(np.mean(seen.attribute == a)) for a in np.unique(seen.attribute).tolist()}
    aligned = {}
    for c in np.unique(seen.labels).tolist():
        of_class = seen.attribute[seen.labels == c]
        aligned[c] = max(share, key=lambda a: float(np.mean(of_class == a)) / share[a])
    return aligned


def measure_groups(hits: np.ndarray, scored: Groups, seen: Groups) -> dict[str, Measured]:
    """Metrics of a head.

    Args:
        hits: which test images it classifies right, bool [N].
        scored: the test images.
        seen: the training images, by which groups are aligned and weighted.
    """
    members, aligned = scored.members(), aligned_attributes(seen)
    accuracy = {group: 100 * float(hits[places].mean()) for group, places in members.items()}
    weights = {group: len(places) for group, places in seen.members().items()}
    differences = []
    for c in sorted({c for c, _ in accuracy}):
        of_aligned = accuracy.get((c, aligned.get(c, -1)))
        conflicting = [value for (label, a), value in accuracy.items() if label == c and a != aligned.get(c)]
        if of_aligned is not None and conflicting:
            differences.append(of_aligned - float(np.mean(conflicting)))
    worst = min(accuracy, key=lambda group: accuracy[group])
    weighted = sum(weights[group] * accuracy[group] for group in weights) / sum(weights.values())
    n = len(hits)
    return {
        "reliance": Measured(float(np.mean(differences)) if differences else 0.0, n),
        "worst_group": Measured(accuracy[worst], len(members[worst])),
        "average": Measured(weighted, n),
        "group_mean": Measured(float(np.mean(list(accuracy.values()))), n),
        "gap": Measured(max(accuracy.values()) - accuracy[worst], n),
    }


def describe_groups(hits: np.ndarray, scored: Groups, seen: Groups) -> list[dict[str, Any]]:
    """Accuracy and sizes of each group, as plain JSON data."""
    aligned, of_training = aligned_attributes(seen), seen.members()
    return [
        {
            "class": c,
            "attribute": a,
            "is_aligned": aligned.get(c) == a,
            "top1": 100 * float(hits[places].mean()),
            "test": len(places),
            "train": len(of_training.get((c, a), ())),
        }
        for (c, a), places in scored.members().items()
    ]
