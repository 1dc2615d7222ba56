"""How well scores separate members of a training set from images that are not in it, and the exposure of canaries.

A high score says "member". The sign is fixed in advance, so an AUC below 50 % is reported as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mimbench.api import Measured, bootstrap_intervals

PER_RATE = 10
"""False alarms that a false-positive rate must allow, so that a true-positive rate at it is measured at all."""


def auc(members: np.ndarray, non_members: np.ndarray) -> float:
    """Probability in percent that a member has a higher score than another image; ties count half. Scores are [N]."""
    ordered = np.sort(non_members)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return 100 * float(below.mean()) / (2 * len(non_members))


def roc(members: np.ndarray, non_members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates, 0 to 1, of every threshold, from the strictest to the most lenient one."""
    thresholds = np.unique(np.concatenate((members, non_members)))[::-1]
    rates = (
        1 - np.searchsorted(np.sort(values), thresholds, "left") / len(values) for values in (non_members, members)
    )
    false, true = (np.concatenate(([0.0], rate)) for rate in rates)
    return false, true


def tpr_at(members: np.ndarray, non_members: np.ndarray, rate: float) -> float:
    """The highest true-positive rate, percent, of thresholds whose false-positive rate is at most `rate`, 0 to 1."""
    false, true = roc(members, non_members)
    return 100 * float(true[false <= rate + 1e-12].max())


def advantage(members: np.ndarray, non_members: np.ndarray) -> float:
    """The largest difference of true- and false-positive rate over all thresholds, percent. It is never negative."""
    false, true = roc(members, non_members)
    return 100 * float((true - false).max())


def is_measurable(rate: float, non_members: int) -> bool:
    """Whether so many non-members have `PER_RATE` false alarms or more at a false-positive rate, 0 to 1."""
    return non_members * rate >= PER_RATE - 1e-9


def separation(
    members: np.ndarray, non_members: np.ndarray, rates: Mapping[str, float], seed: int
) -> tuple[dict[str, Measured], dict[str, list[float]]]:
    """Metrics in percent, and 95 % intervals by a bootstrap of the members and, apart from them, of the non-members.

    Args:
        members: scores [N] of the members.
        non_members: scores [M] of the other images.
        rates: false-positive rates by the name of the metric; those that are not measurable are left out.
    """
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"auc": auc, "advantage": advantage}
    for name, rate in rates.items():
        if is_measurable(rate, len(non_members)):
            measures[name] = lambda one, two, rate=rate: tpr_at(one, two, rate)  # type: ignore[misc]

    def values(places: Sequence[np.ndarray]) -> dict[str, float]:
        one, two = members[places[0]], non_members[places[1]]
        return {name: measure(one, two) for name, measure in measures.items()}

    counts = [len(members), len(non_members)]
    measured = values([np.arange(count) for count in counts])
    return (
        {name: Measured(value, sum(counts)) for name, value in measured.items()},
        bootstrap_intervals(values, counts, seed),
    )


def exposures(canaries: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Exposure of each canary, bits: log2 (M + 1) - log2 of its rank among it and M unseen ones, highest score first.

    0 to log2 (M + 1). Its mean is about 1.44 if nothing is stored (arXiv:1802.08232). Ties take the mean rank.

    Args:
        canaries: scores [N].
        unseen: scores [M] of the unseen ones.
    """
    ordered = np.sort(unseen)
    above = len(unseen) - (np.searchsorted(ordered, canaries, "left") + np.searchsorted(ordered, canaries, "right")) / 2
    return np.log2(len(unseen) + 1) - np.log2(1 + above)


def unstored_exposure(unseen: int) -> float:
    """Mean exposure, bits, of canaries that nothing is stored of: all ranks are equally probable."""
    return float(np.log2(unseen + 1) - np.log2(np.arange(1, unseen + 2)).mean())


def curve(false: np.ndarray, true: np.ndarray, rates: Sequence[float]) -> list[float]:
    """True-positive rates of a ROC curve at false-positive rates, all from 0 to 1."""
    return [float(true[false <= rate + 1e-12].max()) for rate in rates]
