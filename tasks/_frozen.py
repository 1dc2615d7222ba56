"""What the tasks on frozen features share: their options, and their checks."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mimbench.contract import Dataset, Encoder, ImageSplit, InputError, Pooling, Task, TaskConfig, TaskContext
from mimbench_tasks._labels import majority, require_classes


class FrozenConfig(TaskConfig):
    """Which features are taken."""

    layer: int = -1
    """Depth of the features; -1 is the last, after the final norm."""
    pooling: Pooling = "mean"


class FrozenTask(Task):
    """A task that reads frozen features of labelled images."""

    config: FrozenConfig

    def chance(self, dataset: Dataset) -> float:
        return majority(dataset)

    def features(self, train: ImageSplit, test: ImageSplit, context: TaskContext) -> tuple[Tensor, Tensor]:
        """Of training and test images, float32 [N, D] each, at the configured layer."""
        layer, pooling = self.config.layer, self.config.pooling
        return (
            context.features(train, "train", layer=layer, pooling=pooling),
            context.features(test, "test", layer=layer, pooling=pooling),
        )

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        require_classes(dataset, self.name)
        try:
            encoder.layer_index(self.config.layer)
            encoder.check_pooling(self.config.pooling)
        except InputError as error:  # it begins with the option's name
            raise InputError(f"task.{error}") from error


def probabilities(classifier: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """[N, classes] by a fitted scikit-learn classifier; classes that its training never saw get 0."""
    scores = np.zeros((len(x), classes))
    scores[:, classifier.classes_] = classifier.predict_proba(x)
    return scores
