"""Semantic segmentation data in the format of ADE20K's scene parsing release (arXiv:1608.05442)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from mimbench.contract import DataConfig, DataSizes, InputError, SplitName
from mimbench.data.files.listing import ImageFile, image_files, normalize_name
from mimbench.data.sources.class_lists import class_names
from mimbench.data.sources.label_images import read_labels
from mimbench.data.sources.label_maps import LabelMaps, LabelMapsConfig, Pair, listed
from mimbench.data.sources.root import require_root
from mimbench.text import printable

_FOLDERS: dict[SplitName, str] = {"train": "training", "test": "validation"}
_OFFICIAL_CLASSES = 150


class Ade20kConfig(LabelMapsConfig):
    """Options of a folder in ADE20K's format."""

    classes: int | None = Field(default=None, ge=2, le=254)
    """How many there are; absent: as many as the folder's list names, or ADE20K's 150 if it has no list."""
    reduce_zero_label: bool = True
    """Pixels of value 0 are of no class and ignored, class k has the value k + 1, as in ADE20K. False: class k has
    the value k. 255 is always ignored."""


class Ade20k(LabelMaps):
    """root/images/{training,validation}/*.jpg with root/annotations/{training,validation}/*.png with equal names.

    An annotation is a grey or palette image, one class number per pixel. Class names come from root/objectInfo150.txt,
    as ADE20K ships it, or from root/classes.txt, one per line; if neither exists, classes are called by their
    numbers. Annotations without an image are left out, with a note. All files are read once, when the dataset is first
    opened; the verdict is kept in the cache.

    The size of an annotation says which pixels of an image that EXIF turns it is for: those stored or those turned.
    """

    name = "ade20k"
    Config = Ade20kConfig
    config: Ade20kConfig

    def __init__(self, config: Ade20kConfig, cache: Path) -> None:
        """Raises InputError for a folder, an annotation or a label that does not fit, with its name."""
        super().__init__(config, cache)
        self.root = self._root()
        self.classes = self._classes()
        self._alone: list[str] = []
        """Notes on annotations without an image."""
        self.examine({name: self._paired(folder) for name, folder in _FOLDERS.items()}, self._alone)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, Ade20kConfig):
            return None
        classes = config.classes or _OFFICIAL_CLASSES
        return DataSizes(20_210, 2_000, classes=classes, channels=config.channels, source="arXiv:1608.05442")

    def read_annotation(self, path: Path, max_pixels: int) -> np.ndarray:
        return read_labels(path, len(self.classes), self.config.reduce_zero_label, max_pixels)

    def meaning(self) -> tuple[object, ...]:
        return (self.config.reduce_zero_label,)

    def no_class_note(self) -> str:
        return (
            f"all have {'0 or 255' if self.config.reduce_zero_label else '255'}, which is ignored "
            "(data.reduce_zero_label=false makes 0 a class)"
        )

    def _root(self) -> Path:
        root = require_root(self.config.root, self.name, "of ADE20K", "task.data.root")
        folders = [root / kind / part for kind in ("images", "annotations") for part in _FOLDERS.values()]
        missing = [path for path in folders if not path.is_dir()]
        if missing:
            raise InputError(
                f"ade20k wants training/ and validation/ in each of images/ and annotations/ under {printable(root)}, "
                f"and has no {missing[0].relative_to(root)}: pass --set task.data.root=PATH"
            )
        return root

    def _classes(self) -> tuple[str, ...]:
        named = class_names(self.root)
        count = self.config.classes or len(named) or _OFFICIAL_CLASSES
        if named and len(named) != count:
            raise InputError(
                f"the folder {printable(self.root)} names {len(named)} classes and data.classes says {count}: "
                "leave data.classes out, or correct the list"
            )
        if not 2 <= count <= 254:
            raise InputError(f"the folder {printable(self.root)} names {count} classes; 2 to 254 are possible")
        return named or tuple(str(label + self.config.reduce_zero_label) for label in range(count))

    def _paired(self, part: str) -> list[Pair]:
        folders = {kind: self.root / kind / part for kind in ("images", "annotations")}
        images = image_files(folders["images"], self.root)
        if not images:
            raise InputError(f"no images in {printable(folders['images'])}")
        masks = [f for f in image_files(folders["annotations"], self.root) if f.name.lower().endswith(".png")]
        annotations = _by_stem(masks, "annotations")
        stems = _by_stem(images, "images")
        bare = [file.name for stem, file in stems.items() if stem not in annotations]
        if bare:
            raise InputError(
                f"{len(bare)} of {len(images)} images have no annotation of the same name (.png) in "
                f"{printable(folders['annotations'])}: {listed(bare)}"
            )
        alone = [file.name for stem, file in annotations.items() if stem not in stems]
        if alone:
            self._alone.append(
                f"{len(alone)} of {len(masks)} annotations have no image of the same name in "
                f"{printable(folders['images'])} and are left out: {listed(alone)}"
            )
        return [Pair(file, annotations[stem]) for stem, file in stems.items()]


def _by_stem(files: Sequence[ImageFile], kind: str) -> dict[str, ImageFile]:
    """Files by their name within images/ or annotations/, without its ending.

    Raises:
        InputError: two have the same name.
    """
    stems: dict[str, ImageFile] = {}
    for file in files:
        stem = normalize_name(os.path.splitext(file.name.removeprefix(f"{kind}/"))[0])
        first = stems.setdefault(stem, file)
        if first is not file:
            raise InputError(
                f"ade20k: {printable(first.name)} and {printable(file.name)} differ in their ending alone; images and "
                "annotations are matched by name, so keep one of the two"
            )
    return stems
