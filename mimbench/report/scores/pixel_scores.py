"""mIoU, mean accuracy of classes and accuracy of pixels on resampled images."""

from __future__ import annotations

import numpy as np

from mimbench.store.samples import Pixels


class ResampledPixels:
    """The score in percent of one record, when each image counts a number of times."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __call__(self, times: np.ndarray) -> float:
        """times: how often each image counts, [images]. nan if no pixel is left.

        As mmsegmentation's IoUMetric: counts are summed over images, and the mean skips classes without any.
        """
        one = self._pixels
        hits, truth, predicted = times @ one.hits, times @ one.truth, times @ one.predicted
        if one.score == "accuracy":
            hits, whole = hits.sum(keepdims=True), truth.sum(keepdims=True)
        else:
            whole = truth + predicted - hits if one.score == "iou" else truth
        occurs = whole > 0
        return 100 * float((hits[occurs] / whole[occurs]).mean()) if occurs.any() else float("nan")
