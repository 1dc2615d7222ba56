"""COCO-format scenes by path."""

from __future__ import annotations

import json
from pathlib import Path

from mimbench.contract import SceneSplit
from mimbench.errors import InputError


def coco_split(annotations: Path, images: Path) -> SceneSplit:
    """Scenes from a COCO-format annotation file and the folder that its file names start from.

    Classes are named in the order of their category ids, as COCO's own tools order them.

    Raises:
        InputError: either is missing, or the file is not COCO's JSON.
    """
    if not images.is_dir():
        raise InputError(f"the image folder {images} of {annotations} does not exist")
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda category: category["id"])
        classes = tuple(str(category["name"]) for category in categories)
        tables = [content["images"], content["annotations"]]
    except OSError as error:
        raise InputError(f"cannot read the annotations {annotations}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{annotations} is not a COCO annotation file: {reason}") from error
    if not classes or not all(tables):
        raise InputError(f"{annotations} holds no categories, no images or no annotations")
    return SceneSplit(annotations, images, classes)
