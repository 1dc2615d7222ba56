"""Checks of what a dataset holds."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from PIL import Image

from mimbench.contract import DepthSplit, ImageSplit, SceneSplit, SemanticSplit
from mimbench.contract.forms import describe_attribute_problem, describe_image_problem, describe_labels_problem
from mimbench.errors import InputError
from mimbench.testing.checks import BadOptions, Failure, Skip, check
from mimbench.testing.dataset_subject import SPLITS, DatasetSubject, Split, spaced

UNKNOWN = 255
"""The label of a pixel of unknown class."""
COMPARED = 2000
"""Images per split that are compared with the other split, evenly spaced."""
SLACK = 1.0
"""How far a box may reach out of its image, px: annotation tools round."""


@check("split", needs=["metadata_is_complete"])
def splits_open(subject: DatasetSubject) -> None:
    """Every split has the form that `provides` declares, holds images, and has the same classes."""
    try:
        dataset, form, splits = subject.dataset, SPLITS[subject.form], subject.splits()
    except InputError as error:  # its files are missing
        raise BadOptions(str(error)) from error
    if not {"train", "test"} <= splits.keys():
        raise Failure(f"parts is {dataset.parts}; name the splits train and test in it")
    for name, split in splits.items():
        if not isinstance(split, form):
            raise Failure(
                f"the {name} split is a {type(split).__name__}, and provides = {sorted(dataset.provides)} means "
                f"{form.__name__}; correct either"
            )
        if not len(split):
            raise Failure(f"the {name} split has no images; raise InputError in __init__ if data is missing")
    if len({split.classes for split in splits.values() if not isinstance(split, DepthSplit)}) > 1:
        raise Failure("the splits have different classes; use the same names in the same order in all")


@check("split", needs=["splits_open"])
def images_have_their_form(subject: DatasetSubject) -> None:
    """Images are [channels, H, W], or clips [channels, frames, H, W], of a known type and range; files open."""
    channels = getattr(subject.dataset, "channels", None)
    if not isinstance(channels, int) or channels < 1:
        raise Failure(f"channels is {channels!r}; set it to the channels of the images")
    for name, split in subject.splits().items():
        for index in spaced(len(split)):
            if isinstance(split, ImageSplit):
                problem = describe_image_problem(split[index][0], channels, split.pixel_range, subject.dataset.frames)
                if problem:
                    raise Failure(f"image {index} of {name} {problem}")
            else:
                with Image.open(subject.file(split, index)) as image:
                    image.load()


@check("split", needs=["splits_open"])
def labels_are_within_classes(subject: DatasetSubject) -> None:
    """Labels are indices of `classes`, and those of single images agree with `labels`. Depths are in range."""
    for name, split in subject.splits().items():
        if isinstance(split, ImageSplit):
            _check_labels(name, split)
        elif isinstance(split, SemanticSplit):
            _check_pixel_labels(name, split)
        elif isinstance(split, DepthSplit):
            _check_depths(name, split)
        else:
            _check_categories(name, split, subject.scenes(split))


def _check_labels(name: str, split: ImageSplit) -> None:
    labels = split.labels
    if problem := describe_labels_problem(labels, len(split), len(split.classes)):
        raise Failure(f"labels of {name} {problem}")
    for attribute, values in split.attributes.items():
        if problem := describe_attribute_problem(values, len(split)):
            raise Failure(f"values of the attribute {attribute!r} of {name} {problem}")
    masks = split.object_masks
    if masks is not None and (masks.dtype != torch.bool or masks.shape != (len(split), *split[0][0].shape[-2:])):
        raise Failure(
            f"object_masks of {name} is {masks.dtype} {list(masks.shape)}; make it bool, of the size of the images"
        )
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


def _check_depths(name: str, split: DepthSplit) -> None:
    for index in spaced(len(split)):
        depth = split.depth(index)
        is_fine = depth.dtype == torch.float32 and bool(((depth >= 0) & (depth <= split.max_depth)).all())
        if not is_fine:
            raise Failure(
                f"depths {index} of {name} are {depth.dtype} from {float(depth.min()):g} to {float(depth.max()):g}, "
                f"and max_depth is {split.max_depth:g}; return float32 in m, 0 for pixels without a reading"
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
    for name, split in subject.splits().items():
        if isinstance(split, SemanticSplit | DepthSplit):
            for index in spaced(len(split)):
                _check_size(f"{name} {index}", split, index)
        elif isinstance(split, SceneSplit):
            _check_boxes(name, subject, split)


def _check_size(where: str, split: SemanticSplit | DepthSplit, index: int) -> None:
    with Image.open(split.image(index)) as image:
        size = (image.height, image.width)
    has_depth = isinstance(split, DepthSplit)
    values = split.depth(index) if isinstance(split, DepthSplit) else split.labels(index)
    declared, labels = tuple(split.shape(index)), tuple(values.shape)
    if labels != declared or declared not in (size, size[::-1]):
        what = "depths" if has_depth else "labels"
        raise Failure(f"image {where} is {size}, shape() is {declared}, and its {what} are {labels}; make them equal")


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
    """No image is in two splits. A dataset with repeated images waives this."""
    first: dict[bytes, str] = {}
    for name, split in subject.splits().items():
        digests = {index: _digest(subject, split, index) for index in spaced(len(split), COMPARED)}
        repeated = [index for index, digest in digests.items() if digest in first]
        if repeated:
            raise Failure(
                f"{len(repeated)} images of {name} are in {first[digests[repeated[0]]]} as well, such as image "
                f"{repeated[0]}; remove them from one split"
            )
        first |= dict.fromkeys(digests.values(), name)


def _digest(subject: DatasetSubject, split: Split, index: int) -> bytes:
    return hashlib.sha256(subject.read(split, index)[0]).digest()


CONTENT_CHECKS = (
    splits_open,
    images_have_their_form,
    labels_are_within_classes,
    annotations_fit_the_images,
    splits_are_disjoint,
)
