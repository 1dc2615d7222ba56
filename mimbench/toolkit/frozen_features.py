"""The base of tasks on frozen features: their options, checks and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import (
    Dataset,
    Encoder,
    ImageSplit,
    InputError,
    Pooling,
    Task,
    TaskConfig,
    TaskContext,
    added,
)
from mimbench.toolkit.accuracy import majority_accuracy
from mimbench.toolkit.splits import require_classes


class FrozenFeaturesConfig(TaskConfig):
    """Which features a task reads."""

    layer: int = -1
    """Depth of the features; -1 is the last layer, after the final norm."""
    pooling: Pooling = "mean"


class LastLayersConfig(FrozenFeaturesConfig):
    """Options of a task that reads features of several layers, with `FrozenFeaturesTask.features`."""

    last_layers: int = added(1, ge=1)
    """Number of layers, up to `layer`, whose features are concatenated."""


class FrozenFeaturesTask(Task):
    """A task that reads features of labelled images from an encoder whose weights do not change.

    A subclass defines `run`, and calls `self.features` there.
    """

    config: FrozenFeaturesConfig

    def chance(self, dataset: Dataset) -> float:
        """Top-1 accuracy in percent if every test image gets the most frequent class of the training images."""
        return majority_accuracy(dataset)

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Features are the same on any number of processes, and so is what follows from all of them."""
        return ""

    def features(self, train: ImageSplit, test: ImageSplit, context: TaskContext) -> tuple[Tensor, Tensor]:
        """Features of the training and the test images, float32 [N, D] each, at the configured layer and pooling."""
        layer, pooling, count = self.config.layer, self.config.pooling, self.last_layers
        if count == 1:
            return (
                context.features(train, "train", layer=layer, pooling=pooling),
                context.features(test, "test", layer=layer, pooling=pooling),
            )
        layers = range(layer - count + 1, layer + 1)
        return (
            self.join(context.features.each_layer(train, "train", layers=layers, pooling=pooling)),
            self.join(context.features.each_layer(test, "test", layers=layers, pooling=pooling)),
        )

    def join(self, layers: Sequence[Tensor]) -> Tensor:
        """Features of several layers, [N, D] each, as one: [N, D of all]. A subclass may scale them first."""
        return torch.cat(list(layers), 1)

    @property
    def last_layers(self) -> int:
        """Number of layers whose features are concatenated."""
        return self.config.last_layers if isinstance(self.config, LastLayersConfig) else 1

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Check layer, pooling and labels before anything runs.

        Raises:
            InputError: the encoder has no such layer or pooling, or a split has fewer than two classes.
        """
        require_classes(dataset, self.name)
        try:
            encoder.layer_index(self.config.layer)
            encoder.check_pooling(self.config.pooling)
        except InputError as error:  # the message begins with the option's name
            raise InputError(f"task.{error}") from error
        available = encoder.layer_index(self.config.layer) + 1
        if self.last_layers > available:
            raise InputError(
                f"task.last_layers {self.last_layers} is more than the {available} layers up to task.layer"
            )


def class_probabilities(classifier: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of a fitted scikit-learn classifier for each of the dataset's classes.

    Args:
        classifier: has `classes_` and `predict_proba`.
        x: features [N, D].
        classes: number of the dataset's classes.

    Returns:
        [N, classes]. A class that the training images lack gets 0.
    """
    probabilities = np.zeros((len(x), classes))
    probabilities[:, classifier.classes_] = classifier.predict_proba(x)
    return probabilities
