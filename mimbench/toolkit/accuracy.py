"""Accuracy of class scores, over a split and sample by sample, and of always answering the most frequent class."""

from __future__ import annotations

import numpy as np

from mimbench.contract import Dataset, ImageSplit, Measured, SampleScores
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


def classification_scores(split: ImageSplit, probabilities: np.ndarray, *, has_loss: bool = True) -> SampleScores:
    """Scores of single samples, for `TaskResult.scores`: "prediction", "confidence" and "loss".

    The prediction is the class of the highest probability, of equal ones the lower; the confidence is this probability.
    The loss is -log of the probability of the label, in nats.

    Args:
        split: the samples, all of them, with their labels and attributes.
        probabilities: float [N, classes], rows of sum 1, in the order of the split.
        has_loss: False leaves the loss out, for probabilities that may be 0, as those of a vote.
    """
    labels = split.labels.numpy()
    prediction = probabilities.argmax(axis=1)
    columns = {"prediction": prediction, "confidence": probabilities.max(axis=1)}
    if has_loss:
        with np.errstate(divide="ignore"):  # a class that the training images lack has probability 0
            columns["loss"] = -np.log(np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0])
    return SampleScores(np.arange(len(labels)), columns, labels, split.attributes)


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
