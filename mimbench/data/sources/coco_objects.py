"""The objects of a COCO annotation file: what they refer to, boxes, masks, areas and crowd marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mimbench.data.files.image_sizes import Size
from mimbench.data.sources.boxes import FRACTIONS, are_fractions, box_problem, checked_mask, mask_area, number
from mimbench.data.sources.coco_file import CocoFile, plain_key
from mimbench.errors import InputError
from mimbench.text import quoted


def mend_object_ids(file: CocoFile) -> None:
    """No entry refers to an annotation's id. pycocotools needs distinct numbers, and takes 0 for "no match"."""
    records = file.content["annotations"]
    ids = [record.get("id") for record in records]
    if all(type(identity) is int and 0 < identity < 2**53 for identity in ids) and len(set(ids)) == len(ids):
        return
    for number_, record in enumerate(records, start=1):
        record["_given_id"], record["id"] = record.get("id"), number_
    file.mended.add("annotation ids")


def mend_objects(
    file: CocoFile, image_ids: Mapping[int | str, int | str], category_ids: Mapping[int | str, int | str]
) -> None:
    images = {image["id"]: image for image in file.content["images"]}
    bare: list[str] = []
    for index, record in enumerate(file.content["annotations"]):
        original_id = record.pop("_given_id", record["id"])
        try:
            _mend_reference(file, record, "image", image_ids)
            _mend_reference(file, record, "category", category_ids)
            image = images[record["image_id"]]
            reason = _mend_shape(file, record, (image["width"], image["height"]))
        except ValueError as error:
            at = images.get(record.get("image_id")) if isinstance(record.get("image_id"), int | str) else None
            name = f", image {quoted(at['file_name'])}" if at else ""
            raise InputError(
                f"{file.where}: annotation {quoted(original_id)} {error} (entry {index} of annotations{name})"
            ) from error
        if reason:
            bare.append(f"annotation {quoted(original_id)} (entry {index} of annotations): {reason}")
    records = file.content["annotations"]
    if are_fractions(record["bbox"] for record in records):
        raise InputError(f"{file.where}: {FRACTIONS}, as x, y, width, height")
    file.masked = not bare
    if 0 < len(bare) < len(records):
        file.notes.append(
            f"{file.where}: {len(bare)} of {len(records)} objects have no mask, so that no task gets masks; such as "
            f"{bare[0]}"
        )


def _mend_reference(file: CocoFile, record: dict[str, Any], kind: str, ids: Mapping[int | str, int | str]) -> None:
    value = record.get(f"{kind}_id")
    key = plain_key(value)
    if key is None or key not in ids:
        verb = "belongs to image" if kind == "image" else "is of category"
        like = next((other for other in ids if str(other) == str(value)), None)
        hint = "" if like is None else f" (it lists {quoted(like)}; number and text differ)"
        raise ValueError(f"{verb} {quoted(value)}, which the file does not list{hint}")
    if type(value) is not type(ids[key]) or value != ids[key]:
        record[f"{kind}_id"] = ids[key]
        file.mended.add(f"references to {kind} ids")


def _mend_shape(file: CocoFile, record: dict[str, Any], size: Size) -> str | None:
    """Box, mask, area and crowd mark of an object; returns why it has no mask, if it has none.

    Raises:
        ValueError: one of them is wrong.
    """
    if "bbox" not in record:
        raise ValueError("has no 'bbox'")
    if problem := box_problem(record["bbox"], size):
        raise ValueError(problem)
    mask, reason = checked_mask(record.get("segmentation"), size)
    if mask is not None and mask is not record["segmentation"]:
        record["segmentation"] = mask
        file.mended.add("polygons")
    width, height = record["bbox"][2:]
    _mend_area(file, record, lambda: mask_area(mask, size) if mask else width * height)
    if record["area"] > 9 * size[0] * size[1]:
        raise ValueError(f"has the area {quoted(record['area'])}, more than its image; it should be px")
    _mend_crowd(file, record)
    file.boxes.add(record["bbox"], record["area"], size, is_crowd=bool(record["iscrowd"]))
    return reason


def _mend_area(file: CocoFile, record: dict[str, Any], default: Callable[[], float]) -> None:
    value = record.get("area")
    if value is None:
        record["area"] = default()
        file.mended.add("area absent")
        return
    area = number(value)
    if isinstance(value, str):
        try:
            area = record["area"] = number(float(value))
        except ValueError:
            area = None
        file.mended.add("area as text")
    if area is None or area < 0:
        raise ValueError(f"has the area {quoted(value)}; it should be a number of px from 0")


_CROWDS: Sequence[tuple[Any, int]] = ((0, 0), (1, 1), ("0", 0), ("1", 1))


def _mend_crowd(file: CocoFile, record: dict[str, Any]) -> None:
    value = record.get("iscrowd")
    if type(value) is int and value in (0, 1):
        return
    if value is None:
        record["iscrowd"] = 0
        file.mended.add("iscrowd absent")
        return
    crowd = next((crowd for spelling, crowd in _CROWDS if value == spelling), None)
    if crowd is None:
        raise ValueError(f"has the iscrowd {quoted(value)}; it should be 0 or 1")
    record["iscrowd"] = crowd
    file.mended.add("iscrowd as a boolean" if isinstance(value, bool) else "iscrowd as text")
