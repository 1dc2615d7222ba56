"""Names and sizes of the images that a COCO annotation file lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mimbench.data.files.image_sizes import ImageSize, Size, find_inside, match_size, read_image_sizes
from mimbench.data.sources.coco_file import CocoFile
from mimbench.errors import InputError
from mimbench.text import printable, quoted


def mend_images(file: CocoFile, cache: Path, max_pixels: int) -> None:
    """Find every image in its folder, and compare its size with what the file declares.

    Raises:
        InputError: an image is not there, listed twice, cannot be read, or has another size.
    """
    _mend_names(file)
    _mend_sizes(file, cache, max_pixels)


def _mend_names(file: CocoFile) -> None:
    images = file.content["images"]
    missing: list[Any] = []
    seen: dict[str, Any] = {}
    for index, image in enumerate(images):
        if "file_name" not in image:
            raise InputError(f"{file.where}: entry {index} of images has no 'file_name'")
        try:
            name = find_inside(image["file_name"], file.folder)
        except ValueError as error:
            if str(error) == "is not there":
                missing.append(image["file_name"])
                continue
            raise InputError(
                f"{file.where}: the file_name {quoted(image['file_name'])} of image {quoted(image['id'])} "
                f"(entry {index} of images) {error}"
            ) from error
        if name != image["file_name"]:
            image["file_name"] = name
            file.mended.add("file names")
        first = seen.setdefault(os.path.normpath(name), image)
        if first is not image:
            raise InputError(
                f"{file.where}: images {quoted(first['id'])} and {quoted(image['id'])} (entry {index} of images) are "
                f"the same file {quoted(name)}; list each file once, with all of its annotations"
            )
    if missing:
        slashes = " (with a slash for each backslash too)" if "\\" in str(missing[0]) else ""
        raise InputError(
            f"{len(missing)} of {len(images)} images that {file.where} lists are not in {printable(file.folder)}, "
            f"such as {quoted(missing[0])}{slashes}"
        )


def _mend_sizes(file: CocoFile, cache: Path, max_pixels: int) -> None:
    """Every image's declared size, checked against the file's own; absent ones are filled in."""
    images = file.content["images"]
    headers = read_image_sizes(file.names, file.folder, cache, max_pixels)
    unreadable = [name for name, header in headers.items() if isinstance(header, str)]
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(images)} images that {file.where} lists cannot be read, such as "
            f"{quoted(unreadable[0])}: {headers[unreadable[0]]}"
        )
    wrong: list[str] = []
    for index, image in enumerate(images):
        raster = headers[image["file_name"]]
        assert isinstance(raster, ImageSize)
        size = _declared(file, index, image, raster)
        how = match_size(raster, size, file.folder / image["file_name"])
        if how is None:
            wrong.append(
                f"image {quoted(image['file_name'])} is {raster}, and its entry ({index} of images) says "
                f"{size[0]} x {size[1]}"
            )
        else:
            file.turns.add(image["file_name"], raster, how)
    if wrong:
        raise InputError(
            f"{file.where}: {len(wrong)} of {len(images)} images have another size than declared: {wrong[0]}; boxes "
            "would not fit: correct width and height with the boxes, or put the right images there"
        )
    file.notes += file.turns.note(file.where)


def _declared(file: CocoFile, index: int, image: dict[str, Any], raster: ImageSize) -> Size:
    """Width and height of an entry; filled in from the image file if they are absent or null."""
    for side in ("width", "height"):
        value = image.get(side)
        if isinstance(value, float) and value.is_integer():
            image[side] = value = int(value)
            file.mended.add("size as a float")
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(
                f"{file.where}: image {quoted(image['file_name'])} (entry {index} of images) has the {side} "
                f"{quoted(value)}; it should be a whole number of px"
            )
    width, height = image.get("width"), image.get("height")
    if width is not None and height is not None:
        return width, height
    if raster.orientation != 1:
        raise InputError(
            f"{file.where}: image {quoted(image['file_name'])} (entry {index} of images) has no width and height, and "
            f"EXIF data that turn its {raster}; declare the width and height that its boxes are for"
        )
    image["width"], image["height"] = width or raster.stored[0], height or raster.stored[1]
    file.mended.add("sizes")
    return image["width"], image["height"]
