"""Checks of what a dataset holds."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from PIL import Image

from mimbench.contract import ImageSplit, SceneSplit, SemanticSplit
from mimbench.errors import InputError
from mimbench.testing.checks import BadOptions, Failure, Skip, check
from mimbench.testing.dataset_subject import NAMES, SPLITS, DatasetSubject, Split, spaced

UNKNOWN = 255
"""The label of a pixel of unknown class."""
COMPARED = 2000
"""Images per split that are compared with the other split, evenly spaced."""
SLACK = 1.0
"""How far a box may reach out of its image, px: annotation tools round."""


@check("split", needs=["metadata_is_complete"])
def splits_open(subject: DatasetSubject) -> None:
    """Both splits are of the form that `provides` declares, hold images, and share their classes."""
    try:
        dataset, form = subject.dataset, SPLITS[subject.form]
        splits = {name: dataset.split(name) for name in NAMES}
    except InputError as error:  # its files are missing
        raise BadOptions(str(error)) from error
    for name, split in splits.items():
        if not isinstance(split, form):
            raise Failure(
                f"the {name} split is a {type(split).__name__}, and provides = {sorted(dataset.provides)} means "
                f"{form.__name__}; correct either"
            )
        if not len(split):
            raise Failure(f"the {name} split has no images; raise InputError in __init__ if data is missing")
    if splits["train"].classes != splits["test"].classes:
        raise Failure("the splits have different classes; use the same names in the same order in both")


@check("split", needs=["splits_open"])
def images_have_their_form(subject: DatasetSubject) -> None:
    """Images are uint8 [channels, H, W], or files that open."""
    dataset = subject.dataset
    channels = getattr(dataset, "channels", None)
    if not isinstance(channels, int) or channels < 1:
        raise Failure(f"channels is {channels!r}; set it to the channels of the images")
    for name in NAMES:
        split = dataset.split(name)
        for index in spaced(len(split)):
            if isinstance(split, ImageSplit):
                _check_image(f"image {index} of {name}", split[index][0], channels)
            else:
                with Image.open(subject.file(split, index)) as image:
                    image.load()


def _check_image(where: str, image: Any, channels: int) -> None:
    if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8:
        what = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
        raise Failure(f"{where} is {what}, not uint8; return pixels from 0 to 255 as torch.uint8")
    if image.ndim != 3 or image.shape[0] != channels:
        raise Failure(f"{where} has shape {list(image.shape)}, and channels is {channels}; return [{channels}, H, W]")


@check("split", needs=["splits_open"])
def labels_are_within_classes(subject: DatasetSubject) -> None:
    """Labels are indices of `classes`, and those of single images agree with `labels`."""
    for name in NAMES:
        split = subject.dataset.split(name)
        if isinstance(split, ImageSplit):
            _check_labels(name, split)
        elif isinstance(split, SemanticSplit):
            _check_pixel_labels(name, split)
        else:
            _check_categories(name, split, subject.scenes(split))


def _check_labels(name: str, split: ImageSplit) -> None:
    labels, classes = split.labels, len(split.classes)
    if labels.dtype != torch.int64 or labels.shape != (len(split),):
        raise Failure(
            f"labels of {name} are {labels.dtype} {list(labels.shape)} for {len(split)} images; return int64 [N]"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise Failure(f"labels of {name} go from {low} to {high}, and there are {classes} classes; number them from 0")
    for index in spaced(len(split)):
        if int(split[index][1]) != int(labels[index]):
            label, listed = int(split[index][1]), int(labels[index])
            raise Failure(
                f"image {index} of {name} has label {label}, and labels[{index}] is {listed}; make them equal"
            )


def _check_pixel_labels(name: str, split: SemanticSplit) -> None:
    for index in spaced(len(split)):
        labels = split.labels(index)
        known = labels[labels != UNKNOWN]
        if labels.dtype != torch.uint8 or (len(known) and int(known.max()) >= len(split.classes)):
            raise Failure(
                f"pixel labels {index} of {name} are {labels.dtype} up to {int(known.max())}, and there are "
                f"{len(split.classes)} classes; return uint8, {UNKNOWN} for unknown"
            )


def _check_categories(name: str, split: SceneSplit, document: dict[str, Any]) -> None:
    names = tuple(category["name"] for category in sorted(document["categories"], key=lambda one: one["id"]))
    if names != split.classes:
        raise Failure(f"the categories of {name}, by id, are not `classes`; use the same names in the same order")
    known = {category["id"] for category in document["categories"]}
    for annotation in document["annotations"]:
        if annotation["category_id"] not in known:
            raise Failure(f"annotation {annotation['id']} of {name} has an unknown category; remove it or add that")
    if len(document["images"]) != len(split):
        raise Failure(f"{name} has {len(document['images'])} scenes, and count is {len(split)}; make them equal")


@check("split", needs=["labels_are_within_classes", "images_have_their_form"])
def annotations_fit_the_images(subject: DatasetSubject) -> None:
    """Boxes lie within their images, and pixel labels have the size of theirs."""
    if subject.form == "images":
        raise Skip("it has no boxes or masks")
    for name in NAMES:
        split = subject.dataset.split(name)
        if isinstance(split, SemanticSplit):
            for index in spaced(len(split)):
                _check_size(f"{name} {index}", split, index)
        elif isinstance(split, SceneSplit):
            _check_boxes(name, subject, split)


def _check_size(where: str, split: SemanticSplit, index: int) -> None:
    with Image.open(split.image(index)) as image:
        size = (image.height, image.width)
    declared, labels = tuple(split.shape(index)), tuple(split.labels(index).shape)
    if labels != declared or declared not in (size, size[::-1]):
        raise Failure(f"image {where} is {size}, shape() is {declared}, and its labels are {labels}; make them equal")


def _check_boxes(name: str, subject: DatasetSubject, split: SceneSplit) -> None:
    document = subject.scenes(split)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for index in spaced(len(split)):
        with Image.open(subject.file(split, index)) as image:
            declared = sizes[document["images"][index]["id"]]
            if declared not in (image.size, image.size[::-1]):  # EXIF may rotate an image
                raise Failure(
                    f"scene {index} of {name} is {image.size}, and its entry is {declared}; correct the entry"
                )
    for annotation in document["annotations"]:
        (x, y, width, height), (right, bottom) = annotation["bbox"], sizes[annotation["image_id"]]
        if min(x, y) < -SLACK or x + width > right + SLACK or y + height > bottom + SLACK or min(width, height) <= 0:
            raise Failure(
                f"box {annotation['bbox']} of annotation {annotation['id']} of {name} is empty or reaches out of its "
                f"image of {right} x {bottom} px; clip it, boxes are [x, y, width, height]"
            )


@check("split", needs=["splits_open"])
def splits_are_disjoint(subject: DatasetSubject) -> None:
    """No image of the test split is in the train split. A dataset with repeated images waives this."""
    train, test = (subject.dataset.split(name) for name in NAMES)
    trained = {_digest(subject, train, index) for index in spaced(len(train), COMPARED)}
    repeated = [index for index in spaced(len(test), COMPARED) if _digest(subject, test, index) in trained]
    if repeated:
        raise Failure(
            f"{len(repeated)} test images are training images as well, such as image {repeated[0]}; remove them from "
            "one split"
        )


def _digest(subject: DatasetSubject, split: Split, index: int) -> bytes:
    return hashlib.sha256(subject.read(split, index)[0]).digest()


CONTENT_CHECKS = (
    splits_open,
    images_have_their_form,
    labels_are_within_classes,
    annotations_fit_the_images,
    splits_are_disjoint,
)
