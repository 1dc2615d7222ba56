"""COCO-format scenes by path."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mimbench.contract import DataConfig, Dataset, DataSizes, SceneSplit, SplitName, cosmetic
from mimbench.data.files.cache import default_cache
from mimbench.data.files.image_reading import MAX_PIXELS, READER_VERSION
from mimbench.data.files.listing import ImageFile, check_files, normalize_name
from mimbench.data.sources.class_matching import similar_classes
from mimbench.data.sources.coco_file import MENDER_VERSION, CocoFile
from mimbench.data.sources.coco_reading import match_categories, read_coco
from mimbench.data.sources.root import require_root
from mimbench.data.sources.scene_options import SceneConfig, check_images, image_file
from mimbench.errors import InputError, MissingData, nearest
from mimbench.text import printable, quoted

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
    """A split, and what its fingerprint is made of."""

    scenes: SceneSplit
    source: Path
    """The annotation file that was named."""
    changes: list[str]
    """As `CocoFile.changes`."""
    names: list[str]
    """Of its images, sorted."""

    @classmethod
    def from_file(cls, file: CocoFile, cache: Path) -> _Part:
        return cls(_scenes(file, cache), file.path, file.changes, sorted(set(file.names)))

    def files(self) -> list[ImageFile]:
        return [image_file(name, self.scenes.images) for name in self.names]


class CocoConfig(SceneConfig):
    """Where a COCO-format dataset lies; paths are relative to `root` if it is set."""

    train_annotations: Path | None = cosmetic(None)
    """JSON; absent: looked for under `root`, as the paths below are."""
    train_images: Path | None = cosmetic(None)
    """The folder that file names in the JSON start from."""
    test_annotations: Path | None = cosmetic(None)
    test_images: Path | None = cosmetic(None)


class Coco(Dataset):
    """Any dataset in COCO's format: boxes, and masks if every object has one.

    Ids may be any; both splits must name the same categories, and those of test follow train's by name. What
    pycocotools or mmdet would misread is mended in a copy in the cache; what cannot be mended is refused. Width and
    height say which pixels boxes refer to: of an image that EXIF turns, those stored or those turned.

    Crowd regions are no objects: detectors do not learn from them, and finding them is neither right nor wrong.
    """

    name = "coco"
    provides = frozenset({"boxes", "masks"})
    Config = CocoConfig
    config: CocoConfig

    def __init__(self, config: CocoConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        files = {name: read_coco(*self._paths(name), cache, config.max_pixels) for name in ("train", "test")}
        train, test = files["train"], files["test"]
        _require_same_classes(train, test)
        match_categories(test, train)
        _require_other_images(train, test)
        for file in files.values():
            file.check(*files.values())
            file.notes += check_images(sorted(set(file.names)), file.folder, cache, config, file.where)
        notes = (*train.notes, *test.notes, *train.boxes.notes(train.where), *similar_classes(train.classes))
        self.notes = tuple(f"coco: {note}" for note in notes)
        if not (train.masked and test.masked):
            self.provides = frozenset({"boxes"})
        # Not the files' content itself: COCO's own takes gigabytes.
        self._parts = {name: _Part.from_file(file, cache) for name, file in files.items()}

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, CocoConfig) or config.train_annotations or config.test_annotations:
            return None
        source = "COCO 2017, cocodataset.org"
        return DataSizes(118_287, 5_000, 80, config.channels, source, side=640, has_objects=True)

    def split(self, name: SplitName) -> SceneSplit:
        return self._parts[name].scenes

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((READER_VERSION, self.channels, self.config.fingerprint)).encode())
        for name, part in sorted(self._parts.items()):
            digest.update(name.encode() + hashlib.sha256(part.source.read_bytes()).digest())
            if part.changes:
                digest.update(repr((MENDER_VERSION, part.changes)).encode())
            files = part.files()
            if self.config.fingerprint == "names":
                lines = [(normalize_name(file.name), str(file.size)) for file in files]
            else:
                health = check_files(files, part.scenes.images, self.cache, decode=False)
                lines = [(normalize_name(file.name), health[file.name].digest) for file in files]
            digest.update(repr(sorted(lines)).encode())
        return digest.hexdigest()

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Annotation file and image folder of a split."""
        root = self.config.root
        if root is not None:
            root = require_root(root, self.name, "of the dataset", "task.data.root")
        annotations: Path | None = getattr(self.config, f"{name}_annotations")
        images: Path | None = getattr(self.config, f"{name}_images")
        if annotations is None or images is None:
            layout = next((pair for pair in LAYOUTS[name] if root and (root / pair[0]).is_file()), None)
            if layout is None and (annotations is None or root is None):
                options = f"task.data.{name}_annotations=FILE.json and task.data.{name}_images=FOLDER"
                if root is None:
                    raise MissingData(
                        f"{self.name} needs task.data.root: pass --set task.data.root=PATH of the dataset, or {options}"
                    )
                raise InputError(
                    f"{self.name}: no {name} annotations: {printable(root)} has none of "
                    f"{', '.join(pair[0] for pair in LAYOUTS[name])}; pass --set {options}, or task.data.root=PATH"
                )
            annotations = annotations or Path(layout[0] if layout else "")
            images = images or Path(layout[1] if layout else ".")
        base = root or Path()
        return base / annotations.expanduser(), base / images.expanduser()


def _require_same_classes(train: CocoFile, test: CocoFile) -> None:
    for one, other in ((train, test), (test, train)):
        absent = [name for name in one.classes if name not in other.classes]
        if absent:
            raise InputError(
                f"{other.where} has no category {quoted(absent[0])}, which {one.where} has"
                f"{nearest(absent[0], other.classes)}; both must list the same categories"
            )


def _require_other_images(train: CocoFile, test: CocoFile) -> None:
    paths = {name: os.path.realpath(train.folder / name) for name in train.names}
    shared = set(paths.values()) & {os.path.realpath(test.folder / name) for name in test.names}
    if shared:
        raise InputError(
            f"{len(shared)} images of {train.where} are in {test.where} too, such as {quoted(min(shared))}; scores "
            "must be of images that were not trained on"
        )


def coco_split(annotations: Path, images: Path, cache: Path | None = None) -> SceneSplit:
    """Scenes from a COCO-format annotation file and the folder that its file names start from.

    Classes are named in the order of their category ids, as COCO's own tools order them. A file that pycocotools or
    mmdet would misread is mended in a copy, which lies in `cache`.

    Raises:
        InputError: either is missing, the file is not COCO's JSON, or it contradicts itself or the images.
    """
    cache = cache or default_cache()
    return _scenes(read_coco(annotations, images, cache, MAX_PIXELS), cache)


def _scenes(file: CocoFile, cache: Path) -> SceneSplit:
    return SceneSplit(file.written(cache), file.folder, file.classes, len(file.names))
