"""What a metric that is no mean over all samples is computed from, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor

PixelScore = Literal["iou", "class-accuracy", "accuracy"]


@dataclass(frozen=True, eq=False)
class GroupedSamples:
    """Values of a metric that is the mean over groups of samples, such as sets, of the mean over each."""

    values: np.ndarray | Tensor
    """[N]: bool, whether right; or real, in the metric's unit."""
    groups: np.ndarray
    """int [N], 0 or more, the group of each sample; each below the highest one occurs."""


@dataclass(frozen=True, eq=False)
class SegmentedPixels:
    """Pixels of each class in the test images, from which mIoU and its like are computed."""

    hits: np.ndarray
    """int [images, classes], pixels of the class that are predicted as it."""
    truth: np.ndarray
    """int [images, classes], pixels of the class in the ground truth."""
    predicted: np.ndarray
    """int [images, classes], pixels with known ground truth that are predicted as the class."""
    metrics: Mapping[str, PixelScore]
    """By metric: the mean IoU of classes that occur or are predicted; the mean accuracy of classes that occur; or the
    accuracy of all pixels. Counts are summed over images first. In percent."""

    def problem(self) -> str:
        """What is wrong with the shapes and counts; "" if nothing is."""
        for name in ("truth", "predicted"):
            if getattr(self, name).shape != self.hits.shape:
                return f"{name} is {list(getattr(self, name).shape)}, and hits is {list(self.hits.shape)}"
        if self.hits.ndim != 2:
            return f"hits is {list(self.hits.shape)}, not [images, classes]"
        if (self.hits < 0).any() or (self.hits > np.minimum(self.truth, self.predicted)).any():
            return "a count is below 0, or hits are more than pixels of the class"
        if unknown := sorted(set(self.metrics.values()) - set(get_args(PixelScore))):
            return f"{unknown[0]!r} is none of {', '.join(get_args(PixelScore))}"
        return ""
