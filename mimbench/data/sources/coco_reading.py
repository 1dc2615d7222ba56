"""Reads a COCO annotation file so that pycocotools and mmdet can use what they get."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any

from mimbench.data.files.listing import normalize_name
from mimbench.data.sources.coco_file import CocoFile, plain_key
from mimbench.data.sources.coco_images import mend_images
from mimbench.data.sources.coco_objects import mend_object_ids, mend_objects
from mimbench.errors import InputError
from mimbench.text import printable, quoted
from mimbench.text_files import read_text

TABLES = ("images", "annotations", "categories")


def read_coco(annotations: Path, images: Path, cache: Path, max_pixels: int) -> CocoFile:
    """The file, after every entry was checked, and every image's size.

    Raises:
        InputError: the file is not COCO's JSON, or an entry is wrong, contradicts another one or an image.
    """
    if not images.is_dir():
        raise InputError(f"the image folder {printable(images)} of {printable(annotations)} does not exist")
    file = CocoFile(annotations, images, _load(annotations))
    with annotations.open("rb") as stream:
        if stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            file.mended.add("byte-order mark")
    image_ids = _keys(file, "images")
    category_ids = _keys(file, "categories")
    _mend_categories(file)
    mend_object_ids(file)
    mend_images(file, cache, max_pixels)
    mend_objects(file, image_ids, category_ids)
    return file


def match_categories(file: CocoFile, reference: CocoFile) -> None:
    """Give the categories of `file` the ids and the order that they have in `reference`, by name."""
    ids = {category["name"]: category["id"] for category in reference.content["categories"]}
    names_by_id = {category["id"]: category["name"] for category in file.content["categories"]}
    if list(names_by_id.items()) == [(identity, name) for name, identity in ids.items()]:
        return
    by_name = {category["name"]: category for category in file.content["categories"]}
    for record in file.content["annotations"]:
        record["category_id"] = ids[names_by_id[record["category_id"]]]
    file.content["categories"] = [{**by_name[name], "id": identity} for name, identity in ids.items()]
    file.mended.add("categories of another order")


def _load(annotations: Path) -> dict[str, Any]:
    where = printable(annotations)
    try:
        content = json.loads(read_text(annotations))
    except RecursionError as error:
        raise InputError(f"{where} is not a COCO annotation file: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{where} is not a COCO annotation file: {error}") from error
    for table in TABLES:
        entries = content.get(table) if isinstance(content, dict) else None
        if not entries:
            raise InputError(f"{where} is not a COCO annotation file: it holds no {table}")
        if not isinstance(entries, list):
            raise InputError(f"{where} is not a COCO annotation file: its {table} are {quoted(entries)}, not a list")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise InputError(f"{where}: entry {index} of {table} is {quoted(entry)}, not an object with fields")
    return content


def _keys(file: CocoFile, table: str) -> dict[int | str, int | str]:
    """The id of each entry by the id that the file gives it. Ids of one kind stay; mixed ones become numbers from 1."""
    entries = file.content[table]
    original_ids: list[int | str] = []
    for index, entry in enumerate(entries):
        if "id" not in entry:
            raise InputError(f"{file.where}: entry {index} of {table} has no 'id'")
        key = plain_key(entry["id"])
        if key is None:
            raise InputError(
                f"{file.where}: entry {index} of {table} has the id {quoted(entry['id'])}; ids of {table} should be "
                "whole numbers or texts"
            )
        original_ids.append(key)
    key, count = Counter(original_ids).most_common(1)[0]
    if count > 1:
        what = {"images": "image", "categories": "category"}[table]
        raise InputError(f"{file.where}: {what} id {quoted(key)} occurs {count} times; it must be unique")
    is_plain = all(isinstance(key, str) for key in original_ids) or all(
        isinstance(key, int) and abs(key) < 2**53 for key in original_ids
    )
    new_ids = original_ids if is_plain else list(range(1, len(original_ids) + 1))
    for entry, key in zip(entries, new_ids, strict=True):
        if type(entry["id"]) is not type(key) or entry["id"] != key:
            entry["id"] = key
            file.mended.add(f"ids of {table}")
    return dict(zip(original_ids, new_ids, strict=True))


def _mend_categories(file: CocoFile) -> None:
    """Names as text, entries in the order of ids: pycocotools sorts by id, and mmdet keeps the file's order."""
    categories = file.content["categories"]
    for index, category in enumerate(categories):
        name = category.get("name")
        if isinstance(name, int | float) and not isinstance(name, bool):
            category["name"] = str(name)
            file.mended.add("names as numbers")
        elif isinstance(name, str) and name.strip():
            if name != normalize_name(name):
                category["name"] = normalize_name(name)
                file.mended.add("names with decomposed accents")
        else:
            what = f"the name {quoted(name)}; it should be text" if "name" in category else "no 'name'"
            raise InputError(f"{file.where}: entry {index} of categories (id {quoted(category['id'])}) has {what}")
    name, count = Counter(category["name"] for category in categories).most_common(1)[0]
    if count > 1:
        raise InputError(f"{file.where}: category {quoted(name)} occurs {count} times; it must be unique")
    in_order = sorted(categories, key=lambda category: category["id"])
    if in_order != categories:
        file.content["categories"] = in_order
        file.mended.add("categories out of order")
