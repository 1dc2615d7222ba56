"""COCO's average precision of matched detections on resampled images.

Lin et al., arXiv:1405.0312; cocodataset/cocoapi PythonAPI/pycocotools/cocoeval.py, accumulate: precision is the highest
one at the same or a higher recall, read at 101 levels of recall, and averaged over thresholds and classes with objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimbench.store.samples import Detections

_RECALLS = np.linspace(0, 1, 101)


class ResampledPrecision:
    """The average precision in percent of one record, when each image counts a number of times."""

    def __init__(self, detections: Detections, thresholds: Sequence[int]) -> None:
        self.objects, self._classes = detections.objects.astype(np.float64), []
        for number in range(detections.objects.shape[1]):
            chosen = np.flatnonzero(detections.classes == number)
            order = chosen[np.argsort(-detections.scores[chosen], kind="mergesort")]
            counts = ~detections.ignored[order][:, thresholds].T
            hits = detections.hits[order][:, thresholds].T
            self._classes.append((detections.images[order], hits & counts, ~hits & counts))

    def __call__(self, times: np.ndarray) -> float:
        """times: how often each image counts, [images]. nan if no object is left."""
        means = []
        for number, (images, right, wrong) in enumerate(self._classes):
            objects = float(times @ self.objects[:, number])
            if objects:
                weights = times[images].astype(np.float64)
                means.append(_precision(np.cumsum(weights * right, 1), np.cumsum(weights * wrong, 1), objects))
        return 100 * float(np.mean(means)) if means else float("nan")


def _precision(right: np.ndarray, wrong: np.ndarray, objects: float) -> float:
    """Mean over thresholds and levels of recall. right, wrong: detections so far, [thresholds, D]."""
    if not right.shape[1]:
        return 0.0
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, at in zip(right / objects, best, strict=True):
        places = np.searchsorted(recall, _RECALLS, side="left")
        total += float(at[places[places < len(at)]].sum())
    return total / (len(best) * len(_RECALLS))
