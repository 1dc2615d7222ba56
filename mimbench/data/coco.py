"""COCO-format scenes by path."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mimbench.contract import DataConfig, Dataset, SceneSplit, SplitName, cosmetic
from mimbench.data.images import READER_VERSION
from mimbench.data.listing import ImageFile, examine, normal, printable
from mimbench.errors import InputError, nearest

LAYOUTS: Mapping[str, Sequence[tuple[str, str]]] = {
    "train": (
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train.json", "train"),
        ("train/_annotations.coco.json", "train"),
        ("train.json", "train"),
    ),
    "test": (
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val.json", "val"),
        ("annotations/instances_test.json", "test"),
        ("valid/_annotations.coco.json", "valid"),
        ("test/_annotations.coco.json", "test"),
        ("val.json", "val"),
        ("test.json", "test"),
    ),
}
"""Annotations and images that a root is looked through for, in order: COCO's own layout and common others."""


@dataclass(frozen=True)
class _Part:
    """A split, and what was found when it was read."""

    scenes: SceneSplit
    names: list[str]
    """Of its images."""
    masked: bool
    """Every object has a mask."""

    def files(self) -> list[ImageFile]:
        stats = [(name, (self.scenes.images / name).stat()) for name in self.names]
        return [ImageFile(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class CocoConfig(DataConfig):
    """Where a COCO-format dataset lies; paths are relative to `root`, where there is one."""

    train_annotations: Path | None = cosmetic(None)
    """JSON; absent: looked for under `root`, as the paths below are."""
    train_images: Path | None = cosmetic(None)
    """The folder that file names in the JSON start from."""
    test_annotations: Path | None = cosmetic(None)
    test_images: Path | None = cosmetic(None)
    channels: Literal[1, 3] = Field(3)
    """3: RGB. 1: grey."""
    fingerprint: Literal["content", "names"] = cosmetic("content")
    """names: digest the annotations, and of images names and sizes only, for sets too large to read."""


class Coco(Dataset):
    """Any dataset in COCO's format: boxes, and masks where every object has one.

    Category ids may be any; both splits must name the same categories. Crowd regions are no objects: detectors do
    not learn from them, and finding them is neither right nor wrong.
    """

    name = "coco"
    provides = frozenset({"boxes", "masks"})
    Config = CocoConfig
    config: CocoConfig

    def __init__(self, config: CocoConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self._parts = {name: _examined(*self._paths(name)) for name in ("train", "test")}
        train, test = (self._parts[name].scenes for name in ("train", "test"))
        for one, other in ((train, test), (test, train)):
            lacking = [name for name in one.classes if name not in other.classes]
            if lacking:
                raise InputError(
                    f"{other.annotations} has no category {lacking[0]!r}, which {one.annotations} has"
                    f"{nearest(lacking[0], other.classes)}; both must list the same categories"
                )
        if not all(part.masked for part in self._parts.values()):
            self.provides = frozenset({"boxes"})

    def split(self, name: SplitName) -> SceneSplit:
        return self._parts[name].scenes

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((READER_VERSION, self.channels, self.config.fingerprint)).encode())
        for name, part in sorted(self._parts.items()):
            digest.update(name.encode() + hashlib.sha256(part.scenes.annotations.read_bytes()).digest())
            files = part.files()
            if self.config.fingerprint == "names":
                lines = [(normal(file.name), str(file.size)) for file in files]
            else:
                health = examine(files, part.scenes.images, self.cache, decode=False)
                lines = [(normal(file.name), health[file.name].digest) for file in files]
            digest.update(repr(sorted(lines)).encode())
        return digest.hexdigest()

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Annotation file and image folder of a split."""
        root = self.config.root.expanduser() if self.config.root else None
        if root is not None and not root.is_dir():
            raise InputError(
                f"task.data.root {printable(root)} is not a folder: pass --set task.data.root=PATH of the dataset"
            )
        annotations: Path | None = getattr(self.config, f"{name}_annotations")
        images: Path | None = getattr(self.config, f"{name}_images")
        if annotations is None or images is None:
            found = next((pair for pair in LAYOUTS[name] if root and (root / pair[0]).is_file()), None)
            if found is None and (annotations is None or root is None):
                where = f"{printable(root)} has none of {', '.join(pair[0] for pair in LAYOUTS[name])}" if root else ""
                raise InputError(
                    f"{self.name}: no {name} annotations: {where or 'task.data.root is missing'}; pass --set "
                    f"task.data.{name}_annotations=FILE.json and task.data.{name}_images=FOLDER, or task.data.root=PATH"
                )
            annotations = annotations or Path(found[0] if found else "")
            images = images or Path(found[1] if found else ".")
        base = root or Path()
        return base / annotations.expanduser(), base / images.expanduser()


def coco_split(annotations: Path, images: Path) -> SceneSplit:
    """Scenes from a COCO-format annotation file and the folder that its file names start from.

    Classes are named in the order of their category ids, as COCO's own tools order them.

    Raises:
        InputError: either is missing, the file is not COCO's JSON, or it contradicts itself or the folder.
    """
    return _examined(annotations, images).scenes


def _examined(annotations: Path, images: Path) -> _Part:
    """A split, read once: the annotations of COCO itself take seconds."""
    if not images.is_dir():
        raise InputError(f"the image folder {printable(images)} of {printable(annotations)} does not exist")
    content = _read(annotations)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    _check_unique([category["id"] for category in categories], "category id", annotations)
    _check_unique([category["name"] for category in categories], "category", annotations)
    _check_unique([image["id"] for image in content["images"]], "image id", annotations)
    _check_unique([record["id"] for record in content["annotations"]], "annotation id", annotations)
    image_ids = {image["id"] for image in content["images"]}
    category_ids = {category["id"] for category in categories}
    for record in content["annotations"]:
        _check_record(record, image_ids, category_ids, annotations)
    names = [str(image["file_name"]) for image in content["images"]]
    _check_files(names, images, annotations)
    return _Part(
        SceneSplit(annotations, images, tuple(str(category["name"]) for category in categories), len(names)),
        sorted(set(names)),
        all(record.get("segmentation") for record in content["annotations"]),
    )


NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
"""What COCO's own tools read of every entry."""


def _read(annotations: Path) -> dict[str, Any]:
    where = printable(annotations)
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the annotations {where}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{where} is not a COCO annotation file: {error}") from error
    for table, keys in NEEDED.items():
        entries = content.get(table) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{where} is not a COCO annotation file: it holds no {table}")
        for number, entry in enumerate(entries):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise InputError(f"{where}: entry {number} of {table} has no {lacking[0]!r}, which COCO's tools need")
        if {type(entry["id"]) for entry in entries} not in ({int}, {str}):
            raise InputError(f"{where}: the ids of {table} should be whole numbers, or all of them texts")
    return content


def _check_unique(values: Sequence[Any], what: str, annotations: Path) -> None:
    value, count = Counter(map(str, values)).most_common(1)[0]
    if count > 1:
        raise InputError(f"{printable(annotations)}: {what} {value!r} occurs {count} times; it must be unique")


def _check_record(record: Mapping[str, Any], images: set[Any], categories: set[Any], annotations: Path) -> None:
    problem = ""
    if record["id"] == 0:  # COCO's evaluation keeps 0 for "nothing found"
        problem = "has id 0, which COCO's metrics count as missed; number annotations from 1"
    elif not isinstance(record["image_id"], int | str) or record["image_id"] not in images:
        problem = f"belongs to image {record['image_id']!r}, which the file does not list"
    elif not isinstance(record["category_id"], int | str) or record["category_id"] not in categories:
        problem = f"is of category {record['category_id']!r}, which the file does not list"
    elif not _is_box(record["bbox"]):
        problem = f"has the bbox {record['bbox']!r}; it should be x, y, width and height, px"
    if problem:
        raise InputError(f"{printable(annotations)}: annotation {record['id']!r} {problem}")


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    return numbers and box[2] >= 0 and box[3] >= 0


def _check_files(names: Sequence[str], images: Path, annotations: Path) -> None:
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images that {printable(annotations)} lists are not in "
            f"{printable(images)}, such as {printable(missing[0])}"
        )
