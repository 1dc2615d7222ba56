"""Test views of a task on clips, and what it reports of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import Dataset, ImageSplit, Measured, TaskConfig, clip_views, labelled_split


class ViewsConfig(TaskConfig):
    """How often each test video is shown. Its score is the mean of its views' class probabilities."""

    clips: int = Field(1, ge=1)
    """Test clips per video, which together cover it; more than 1 for datasets that cut clips out of longer videos."""
    crops: int = Field(1, ge=1)
    """Crops per test clip, at equal distances along the longer side; more than 1 for videos in files."""


def check_views(config: ViewsConfig, dataset: Dataset) -> None:
    """Raise InputError if the dataset's test split has no such views."""
    clip_views(labelled_split(dataset, "test"), config.clips, config.crops)


def mean_probabilities(
    split: ImageSplit, config: ViewsConfig, score: Callable[[ImageSplit, str], Tensor], which: str = "test"
) -> Tensor:
    """Class probabilities of each video, float64 [N, classes]: the mean over its views.

    Args:
        score: (the split that shows one view, its name) -> class probabilities [N, classes].
        which: name of the split. Each view has its number too, if there are several.
    """
    views = clip_views(split, config.clips, config.crops)
    total = torch.zeros((), dtype=torch.float64)
    for number, view in enumerate(views):
        name = f"{which}, view {number + 1} of {config.clips} x {config.crops}" if len(views) > 1 else which
        total = total + score(view, name).double()
    return total / len(views)


def class_accuracies(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Top-1 accuracy in percent of each class that the labels have.

    Args:
        probabilities: [N, classes].
        labels: int64 [N].
    """
    right = (probabilities.argmax(1) == labels).double()
    return {
        name: 100 * float(right[labels == label].mean())
        for label, name in enumerate(classes)
        if bool((labels == label).any())
    }


def per_class(probabilities: Tensor, shuffled: Tensor, split: ImageSplit) -> tuple[Measured, dict[str, Any]]:
    """The mean accuracy over classes, and the accuracy of each for a record: "in order", and with frames "shuffled".

    Args:
        probabilities, shuffled: [N, classes], of the clips and of the same clips with shuffled frames.
    """
    in_order = class_accuracies(probabilities, split.labels, split.classes)
    out_of_order = class_accuracies(shuffled, split.labels, split.classes)
    details = {name: {"in order": in_order[name], "shuffled": out_of_order[name]} for name in in_order}
    return Measured(sum(in_order.values()) / len(in_order), len(split)), details
