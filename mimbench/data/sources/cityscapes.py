"""Cityscapes' fine annotations by path (arXiv:1604.01685)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimbench.contract import DataConfig, DataSizes, InputError, SplitName
from mimbench.data.files.listing import ImageFile, image_files
from mimbench.data.sources.label_images import read_values
from mimbench.data.sources.label_maps import LabelMaps, LabelMapsConfig, Pair, listed
from mimbench.data.sources.root import require_root
from mimbench.text import printable

CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Name of each of the 19 classes that are scored, in the order of their trainIds -> its labelId
(mcordts/cityscapesScripts, cityscapesscripts/helpers/labels.py). All other labelIds are ignored."""
_IGNORED = 255
_SPLITS: dict[SplitName, str] = {"train": "train", "test": "val"}
_IMAGE, _TRAIN_IDS, _IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_MOST_IDS = 34
"""labelIds are below this number, or 255."""


class Cityscapes(LabelMaps):
    """root/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png with root/gtFine/{train,val}/CITY/*_gtFine_*.png.

    Labels are the files that end in labelTrainIds.png, or, for a split without any, those in labelIds.png, mapped to
    the 19 classes. The official train split is trained on, and val is the test split.
    """

    name = "cityscapes"

    def __init__(self, config: LabelMapsConfig, cache: Path) -> None:
        """Raises InputError for a folder, an image or a label map that does not fit, with its name."""
        super().__init__(config, cache)
        self.root = require_root(config.root, self.name, "of the folder with leftImg8bit and gtFine")
        self.classes = tuple(CLASSES)
        self.examine({name: self._paired(folder) for name, folder in _SPLITS.items()})

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, LabelMapsConfig):
            return None
        return DataSizes(2_975, 500, len(CLASSES), config.channels, source="arXiv:1604.01685, section 2.1", side=2048)

    def read_annotation(self, path: Path, max_pixels: int) -> np.ndarray:
        values = read_values(path, max_pixels)
        table = _train_ids() if path.name.endswith(_IDS) else _as_they_are()
        bad = values[(values < 0) | (values > 255)]
        bad = bad if bad.size else values[table[values] < 0]
        if bad.size:
            what = "labelIds are 0 to 33" if path.name.endswith(_IDS) else "trainIds are 0 to 18"
            raise ValueError(f"holds the value {bad.flat[0]}; {what}, and 255 is ignored")
        return table[values].astype(np.uint8)

    def meaning(self) -> tuple[object, ...]:
        return ("cityscapes", tuple(CLASSES.items()))

    def no_class_note(self) -> str:
        return "all are of labelIds that are not scored"

    def _paired(self, part: str) -> list[Pair]:
        folders = [self.root / kind / part for kind in ("leftImg8bit", "gtFine")]
        for folder in folders:
            if not folder.is_dir():
                raise InputError(
                    f"cityscapes: {printable(self.root)} has no {folder.relative_to(self.root)}; data.root is "
                    "the folder with leftImg8bit/{train,val} and gtFine/{train,val}"
                )
        images = _by_frame(image_files(folders[0], self.root), "leftImg8bit", _IMAGE)
        if not images:
            raise InputError(f"cityscapes: no images *{_IMAGE} in {printable(folders[0])}")
        labels = image_files(folders[1], self.root)
        annotations = _by_frame(labels, "gtFine", _TRAIN_IDS) or _by_frame(labels, "gtFine", _IDS)
        bare = [file.name for frame, file in images.items() if frame not in annotations]
        if bare:
            ending = _IDS if any(file.name.endswith(_IDS) for file in annotations.values()) else _TRAIN_IDS
            raise InputError(
                f"cityscapes: {len(bare)} of {len(images)} images have no *{ending} in {printable(folders[1])}: "
                f"{listed(bare)}"
            )
        return [Pair(file, annotations[frame]) for frame, file in images.items()]


def _by_frame(files: Sequence[ImageFile], kind: str, ending: str) -> dict[str, ImageFile]:
    """Files with this ending, by split, city and frame."""
    return {
        file.name.removeprefix(f"{kind}/").removesuffix(ending): file for file in files if file.name.endswith(ending)
    }


def _train_ids() -> np.ndarray:
    """int64 [256]: class of each labelId; 255: ignored, -1: no such labelId."""
    table = np.full(256, -1)
    table[:_MOST_IDS] = _IGNORED
    table[_IGNORED] = _IGNORED
    table[list(CLASSES.values())] = np.arange(len(CLASSES))
    return table


def _as_they_are() -> np.ndarray:
    table = np.full(256, -1)
    table[: len(CLASSES)] = np.arange(len(CLASSES))
    table[_IGNORED] = _IGNORED
    return table
