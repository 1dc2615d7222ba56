"""Intersection over union from a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from torch import Tensor

from mimbench.contract import SegmentedPixels
from mimbench.contract.sample_values import PixelScore

IGNORED = 255


@dataclass(frozen=True)
class Scores:
    """Scores in percent. The value of a class without pixels is NaN, and the mean skips it."""

    mean_iou: float
    mean_accuracy: float
    accuracy: float
    """Of all pixels."""
    iou: list[float]
    """Per class; NaN if the class is neither in the ground truth nor predicted."""
    class_accuracy: list[float]
    """Per class; NaN if the class is not in the ground truth."""
    pixels: list[int]
    """Pixels per class in the ground truth."""


METRICS: Mapping[str, PixelScore] = {
    "mIoU": "iou",
    "mAcc": "class-accuracy",
    "aAcc": "accuracy",
}


class Confusion:
    """Counts of pixels by true class (row) and predicted class (column), over any number of images."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.long)
        self._by_image: list[Tensor] = []  # hits, ground truth and predictions per class, [3, classes]

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Add ground truth and prediction of an image, integers of the same shape.

        Pixels with ground truth 255 do not count.
        """
        known = truth != IGNORED
        pairs = truth[known].long() * self.classes + predicted[known].long()
        counts = torch.bincount(pairs, minlength=self.classes**2).reshape(self.counts.shape)
        self.counts += counts
        self._by_image.append(torch.stack((counts.diagonal(), counts.sum(1), counts.sum(0))).to(torch.int32))

    def merge(self, other: Confusion) -> None:
        """Add the counts of further images."""
        self.counts += other.counts
        self._by_image += other._by_image

    def pixels(self) -> SegmentedPixels:
        """Counts of each image in the order in which they were added, from which mIoU, mAcc and aAcc are computed."""
        hits, truth, predicted = torch.stack(self._by_image, 1).numpy()
        return SegmentedPixels(hits, truth, predicted, METRICS)

    def scores(self) -> Scores:
        """mIoU, mAcc and aAcc as mmsegmentation's IoUMetric defines them, which averages over classes that occur.

        A class that is not in the truth, but was predicted somewhere, counts with an IoU of 0.
        """
        counts = self.counts.double()
        hit, truth = counts.diagonal(), counts.sum(1)
        iou = 100 * hit / (truth + counts.sum(0) - hit)
        accuracy = 100 * hit / truth
        return Scores(
            mean_iou=float(iou.nanmean()),
            mean_accuracy=float(accuracy.nanmean()),
            accuracy=float(100 * hit.sum() / truth.sum()),
            iou=iou.tolist(),
            class_accuracy=accuracy.tolist(),
            pixels=self.counts.sum(1).tolist(),
        )


def constant_score(train: Tensor, test: Tensor) -> float:
    """mIoU of answering the most frequent class of the training set everywhere, percent.

    train, test: int64 [classes], pixels of each class.
    """
    confusion = Confusion(len(test))
    confusion.counts[:, int(train.argmax())] = test
    return confusion.scores().mean_iou


def per_class(scores: Scores, classes: tuple[str, ...]) -> dict[str, Any]:
    """IoU, accuracy and pixels of each class by name, for a record; None if a score is not known."""
    rows = zip(classes, scores.iou, scores.class_accuracy, scores.pixels, strict=True)
    return {
        name: {"IoU": None if isnan(iou) else iou, "acc": None if isnan(accuracy) else accuracy, "pixels": pixels}
        for name, iou, accuracy, pixels in rows
    }
