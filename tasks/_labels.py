"""What tasks over images share: their splits, and how answers are counted."""

from __future__ import annotations

import numpy as np

from mimbench.contract import Dataset, ImageSplit, InputError, Measured, SceneSplit, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "test")


def images_of(dataset: Dataset, name: SplitName, kind: str = "plain") -> ImageSplit:
    """A split of images. Raises InputError where it is one of scenes; `kind` is what the message calls the images."""
    split = dataset.split(name)
    if not isinstance(split, ImageSplit):
        raise InputError(f"the {name} split of dataset {dataset.name!r} has no {kind} images, only scenes")
    return split


def labelled(dataset: Dataset, name: SplitName) -> ImageSplit:
    """As `images_of`, for tasks that read labels."""
    return images_of(dataset, name, "labelled")


def scenes_of(dataset: Dataset, name: SplitName) -> SceneSplit:
    """A split of scenes with boxes. Raises InputError where it is none."""
    split = dataset.split(name)
    if not isinstance(split, SceneSplit):
        raise InputError(
            f"dataset {dataset.name!r} has no scenes with boxes; name one that has with task.dataset, e.g. digit-scenes"
        )
    return split


def why_no_masks(dataset: Dataset) -> str:
    """What the dataset noted of objects without a mask, in brackets; "" if it noted nothing."""
    return "".join(f" ({note})" for note in dataset.notes if "have no mask" in note)


def require_grey_or_rgb(channels: int, what: str, task: str) -> None:
    """Raise InputError unless there are 1 or 3 channels; `what` has them."""
    if channels not in (1, 3):
        raise InputError(f"{task} is defined on grey and RGB images, and {what} has {channels} channels")


def require_classes(dataset: Dataset, task: str) -> None:
    """Raise InputError where a split has no images, or fewer than two classes of them. Reads the labels."""
    for name in SPLITS:
        if len(labelled(dataset, name).labels.unique()) < 2:
            raise InputError(f"{task} needs two or more labelled classes; the {name} split of the dataset has not")


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
