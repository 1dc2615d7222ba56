"""What the tasks on frozen features share: their splits, their options, and how answers are counted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mimbench.contract import Dataset, Encoder, ImageSplit, InputError, Measured, Pooling, Task, TaskConfig


class FrozenConfig(TaskConfig):
    """Which features are taken."""

    layer: int = -1
    """Depth of the features; -1 is the last, after the final norm."""
    pooling: Pooling = "mean"


class FrozenTask(Task):
    """A task that reads frozen features of labelled images."""

    config: FrozenConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        for name in ("train", "test"):
            if len(labelled(dataset, name).labels.unique()) < 2:
                raise InputError(
                    f"{self.name} needs two or more labelled classes; the {name} split of the dataset has not"
                )
        try:
            encoder.layer_index(self.config.layer)
            encoder.check_pooling(self.config.pooling)
        except InputError as error:  # it begins with the option's name
            raise InputError(f"task.{error}") from error


def labelled(dataset: Dataset, name: Literal["train", "test"]) -> ImageSplit:
    """A split of labelled images.

    Raises:
        InputError: it is one of scenes.
    """
    split = dataset.split(name)
    if not isinstance(split, ImageSplit):
        raise InputError(f"the {name} split of dataset {dataset.name!r} has no labelled images, only scenes")
    return split


def majority(dataset: Dataset, places: np.ndarray | None = None) -> float:
    """Always answering the most frequent class of the training set, percent of the test images (at `places`)."""
    train, test = labelled(dataset, "train"), labelled(dataset, "test")
    labels = test.labels.numpy() if places is None else test.labels.numpy()[places]
    return 100 * float(np.mean(labels == np.bincount(train.labels.numpy()).argmax()))


def top_k(labels: np.ndarray, scores: np.ndarray, k: int) -> Measured:
    """Percent of the images whose label is among the k classes of highest score; of equal scores the first counts.

    labels: int [N]. scores: float [N, classes].
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Measured(100 * float(np.mean((best == labels[:, None]).any(axis=1))), len(labels))


def probabilities(classifier: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """[N, classes] by a fitted scikit-learn classifier; classes that its training never saw get 0."""
    scores = np.zeros((len(x), classes))
    scores[:, classifier.classes_] = classifier.predict_proba(x)
    return scores
