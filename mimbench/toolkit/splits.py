"""Splits of a dataset by kind, with a clear error if the dataset has no such split."""

from __future__ import annotations

from mimbench.contract import Dataset, ImageSplit, InputError, SceneSplit, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "test")


def image_split(dataset: Dataset, name: SplitName, kind: str = "plain") -> ImageSplit:
    """A split of images.

    Args:
        kind: what the error message calls the missing images, such as "labelled".

    Raises:
        InputError: it is a split of scenes.
    """
    split = dataset.split(name)
    if not isinstance(split, ImageSplit):
        raise InputError(f"the {name} split of dataset {dataset.name!r} has no {kind} images, only scenes")
    return split


def labelled_split(dataset: Dataset, name: SplitName) -> ImageSplit:
    """A split of images, for tasks that read their labels. Raises InputError if it is a split of scenes."""
    return image_split(dataset, name, "labelled")


def pick_attribute(split: ImageSplit, name: str | None) -> str:
    """The name of the attribute that groups are made by: the only one that the split has, if none is named.

    Raises:
        InputError: the split has no attribute of this name, or none or several if none is named.
    """
    if name is None and len(split.attributes) == 1:
        (name,) = split.attributes
    if name is None or name not in split.attributes:
        have = ", ".join(sorted(split.attributes)) or "none"
        raise InputError(f"task.attribute is {name or 'not set'}; set it to one of the dataset's attributes: {have}")
    return name


def scene_split(dataset: Dataset, name: SplitName) -> SceneSplit:
    """A split of scenes with boxes. Raises InputError if the dataset has none."""
    split = dataset.split(name)
    if not isinstance(split, SceneSplit):
        raise InputError(
            f"dataset {dataset.name!r} has no scenes with boxes; set task.dataset to one that has, e.g. digit-scenes"
        )
    return split


def missing_masks_note(dataset: Dataset) -> str:
    """The dataset's note on objects without a mask, in brackets, to end an error message with; "" if it has none."""
    return "".join(f" ({note})" for note in dataset.notes if "have no mask" in note)


def require_grey_or_rgb(channels: int, owner: str, task: str) -> None:
    """Raise InputError unless `channels` is 1 or 3.

    Args:
        owner: what has the channels, for the message, such as "the encoder".
        task: the task's name, for the message.
    """
    if channels not in (1, 3):
        raise InputError(f"{task} is defined on grey and RGB images, and {owner} has {channels} channels")


def require_classes(dataset: Dataset, task: str) -> None:
    """Raise InputError if a split has no labelled images, or fewer than two classes. Reads the labels."""
    for name in SPLITS:
        if len(labelled_split(dataset, name).labels.unique()) < 2:
            raise InputError(f"{task} needs two or more labelled classes; the {name} split of the dataset has fewer")
