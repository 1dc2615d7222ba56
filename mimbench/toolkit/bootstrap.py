"""Intervals of metrics by a bootstrap over the images of groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS = 1000


def bootstrap_intervals(
    measure: Callable[[Sequence[np.ndarray]], Mapping[str, float]], sizes: Sequence[int], seed: int
) -> dict[str, list[float]]:
    """95 % intervals of metrics by name: percentiles over 1,000 draws of the images of each group, with replacement.

    Args:
        measure: positions within each group, one int64 array [size] per group -> metrics, the same names each time.
        sizes: number of images of each group; every draw has as many.
        seed: of the draws.
    """
    rng = np.random.RandomState(seed)
    drawn = [measure([rng.randint(0, size, size) for size in sizes]) for _ in range(DRAWS)]
    return {name: np.percentile([one[name] for one in drawn], [2.5, 97.5]).tolist() for name in drawn[0]}
