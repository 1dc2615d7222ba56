"""Accuracy of class scores, and of always answering the most frequent class."""

from __future__ import annotations

import numpy as np

from mimbench.contract import Dataset, Measured
from mimbench.toolkit.splits import labelled_split


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> Measured:
    """Percent of the images whose label is among the k classes with the highest score.

    Of equal scores, the class with the lower index comes first.

    Args:
        labels: int [N].
        scores: float [N, classes].
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hits = (best == labels[:, None]).any(axis=1)
    return Measured(100 * float(np.mean(hits)), len(labels))


def majority_accuracy(dataset: Dataset, indices: np.ndarray | None = None) -> float:
    """Accuracy in percent of answering the most frequent class of the training images everywhere.

    Args:
        indices: the test images that count, int [N]; None counts all.

    Raises:
        InputError: the dataset has no labelled images.
    """
    train, test = labelled_split(dataset, "train"), labelled_split(dataset, "test")
    labels = test.labels.numpy() if indices is None else test.labels.numpy()[indices]
    most_frequent = np.bincount(train.labels.numpy()).argmax()
    return 100 * float(np.mean(labels == most_frequent))
