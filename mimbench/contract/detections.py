"""Detections of a test split, matched with the annotated objects: what an average precision is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """D detections on the images of the test split, matched as COCO does, at T thresholds of overlap.

    They are in the order of the images, and within an image from the highest score on.
    """

    images: np.ndarray
    """int [D], position of the image."""
    classes: np.ndarray
    """int [D], below C."""
    scores: np.ndarray
    """float32 [D]."""
    hits: np.ndarray
    """bool [D, T], whether the detection has an object of its own at this threshold."""
    ignored: np.ndarray
    """bool [D, T], whether it counts neither as right nor as wrong, as one on a crowd."""
    objects: np.ndarray
    """int [images, C], annotated objects that count."""
    metrics: Mapping[str, tuple[int, ...]]
    """Metrics of the task that are the mean average precision over these thresholds, by their index."""

    def problem(self) -> str:
        """What is wrong with the shapes; "" if nothing is."""
        count, thresholds = len(self.images), self.hits.shape[-1]
        shapes = {
            "images": (count,),
            "classes": (count,),
            "scores": (count,),
            "hits": (count, thresholds),
            "ignored": (count, thresholds),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                return f"{name} is {list(getattr(self, name).shape)}, not {list(shape)}"
        if self.objects.ndim != 2:
            return f"objects is {list(self.objects.shape)}, not [images, classes]"
        if count and (self.images.max() >= len(self.objects) or self.classes.max() >= self.objects.shape[1]):
            return "an image or a class is not among those of objects"
        return ""
