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
    return Measured(100 * float(np.mean(top_k_hits(labels, scores, k))), len(labels))


def top_k_hits(labels: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Of which images the label is among the k classes with the highest score: bool [N]. See `top_k_accuracy`."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return (best == labels[:, None]).any(axis=1)


def classification_scores(split: ImageSplit, probabilities: np.ndarray, *, has_loss: bool = True) -> SampleScores:
    """Scores of single samples, for `TaskResult.scores`: "prediction", "confidence" and "loss".

    The prediction is the class of the highest probability, of equal ones the lower; the confidence is this probability.
    The loss is -log of the probability of the label, in nats. Near probability 1 it follows from the probabilities of
    the other classes, so that small losses keep their digits.

    Args:
        split: the samples, all of them, with their labels and attributes.
        probabilities: float64 [N, classes], rows of sum 1, in the order of the split. In float32, a probability near 1
            would be rounded to 1, and a small one to 0: use `logits.double().softmax(1)`.
        has_loss: False leaves the loss out, for probabilities that may be 0, as those of a vote.
    """
    labels = split.labels.numpy()
    prediction = probabilities.argmax(axis=1)
    columns = {"prediction": prediction, "confidence": probabilities.max(axis=1)}
    if has_loss:
        columns["loss"] = _cross_entropy(probabilities, labels)
    return SampleScores(np.arange(len(labels)), columns, labels, split.attributes)


def _cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log of the probability of each label, float64 [N]; inf if that is 0."""
    is_label = np.arange(probabilities.shape[1]) == labels[:, None]
    of_label = np.where(is_label, probabilities, 0.0).sum(axis=1)
    of_others = np.where(is_label, 0.0, probabilities).sum(axis=1)
    with np.errstate(divide="ignore"):  # a class that the training images lack has probability 0
        plain = -np.log(of_label)
    return np.where(of_label > 0.5, -np.log1p(-np.minimum(of_others, 0.5)), plain)


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
