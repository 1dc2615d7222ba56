"""The result of an attack: metrics, curves and scores of single images."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimbench.api import Measured, SampleScores, TaskResult
from mimbench_tasks.privacy import measures
from mimbench_tasks.privacy.pool import CODE, COPIES, Pool

RATES = {"tpr_at_1": 0.01, "tpr_at_0_1": 0.001}
"""False-positive rates, 0 to 1, of the true-positive rates that are reported."""
EXPOSED = (1, 4, 16)
"""Numbers of copies whose exposure is a metric."""
POINTS = 41
"""Points of the recorded ROC curve. Its false-positive rates go from one false alarm to 1 in equal factors."""


def describe(pool: Pool, scores: np.ndarray, is_scored: np.ndarray, seed: int) -> TaskResult:
    """Metrics of an attack, its ROC curve, and the scores themselves.

    Args:
        scores: of the pool's images, float64 [N].
        is_scored: which of them count, bool [N].
        seed: of the bootstrap.
    """
    members, non_members = (scores[group[is_scored[group]]] for group in (pool.members(), pool.non_members()))
    metrics, intervals = measures.separation(members, non_members, RATES, seed)
    least = {name: round(measures.PER_RATE / rate) for name, rate in RATES.items()}
    absent = {
        name: f"it needs {count:,} non-members, and there are {len(non_members):,}"
        for name, count in least.items()
        if name not in metrics
    }
    exposed = _exposures(pool, scores)
    for copies in EXPOSED:
        if copies in exposed:
            metrics[f"exposure_{copies}"] = Measured(float(exposed[copies].mean()), len(exposed[copies]))
        else:
            absent[f"exposure_{copies}"] = f"there is no canary with {copies} copies in the training set"
    false, true = measures.roc(members, non_members)
    rates = np.geomspace(1 / len(non_members), 1, POINTS).tolist()
    unseen = len(pool.codes(0))
    details: dict[str, Any] = {
        "members": len(members),
        "non_members": len(non_members),
        "intervals": intervals,
        "exposures": {str(copies): values.tolist() for copies, values in exposed.items()},
        **({"exposure_if_not_stored": measures.unstored_exposure(unseen)} if exposed else {}),
        **({"absent": absent} if absent else {}),
    }
    return TaskResult(
        metrics,
        curves={
            "false_positive_rate": rates,
            "true_positive_rate": measures.curve(false, true, rates),
            **(
                {"copies": list(exposed), "exposure": [float(values.mean()) for values in exposed.values()]}
                if exposed
                else {}
            ),
        },
        details=details,
        scores=SampleScores(
            pool.ids[is_scored],
            {"score": scores[is_scored]},
            attributes={
                "member": pool.is_member[is_scored],
                CODE: pool.is_code[is_scored],
                COPIES: pool.copies[is_scored],
            },
            split="+".join(pool.indices),
        ),
    )


def _exposures(pool: Pool, scores: np.ndarray) -> dict[int, np.ndarray]:
    """Exposures in bits of the canaries, by their number of copies."""
    unseen = scores[pool.codes(0)]
    if not len(unseen):
        return {}
    counts = sorted({int(count) for count in pool.copies[pool.is_code] if count})
    return {count: measures.exposures(scores[pool.codes(count)], unseen) for count in counts}
