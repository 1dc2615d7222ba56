"""PASCAL VOC 2012's class segmentation by path."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mimbench.contract import DataConfig, DataSizes, InputError
from mimbench.data.files.listing import ImageFile, subfolders
from mimbench.data.sources.label_images import read_labels
from mimbench.data.sources.label_maps import LabelMaps, LabelMapsConfig, Pair, listed
from mimbench.data.sources.root import require_root
from mimbench.data.sources.scene_options import image_file
from mimbench.text import printable, quoted
from mimbench.text_files import read_text

CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
"""By their value in an annotation (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples/)."""


class VocSegmentationConfig(LabelMapsConfig):
    """Options of a folder in the format of VOC 2012."""

    train: str = "train"
    """List of ImageSets/Segmentation that is trained on, such as "trainaug", the 10,582 images of SBD and VOC."""
    test: str = "val"
    """List that is scored."""
    annotations: str = "SegmentationClass"
    """Folder of the annotations. Those of trainaug usually lie in "SegmentationClassAug"."""


class VocSegmentation(LabelMaps):
    """root/JPEGImages/*.jpg with root/SegmentationClass/*.png, listed in root/ImageSets/Segmentation/*.txt.

    `root` is that folder, or one that holds it: VOC2012, VOCdevkit, or the folder around it. Class 0 is the background,
    and 255, the border of objects, is ignored.
    """

    name = "voc-segmentation"
    Config = VocSegmentationConfig
    config: VocSegmentationConfig

    def __init__(self, config: VocSegmentationConfig, cache: Path) -> None:
        """Raises InputError for a folder, a list or a file that does not fit, with its name."""
        super().__init__(config, cache)
        self.root = self._find_folder(require_root(config.root, self.name, "of a VOC folder"))
        self.classes = tuple(CLASSES)
        pairs = {"train": self._paired(config.train), "test": self._paired(config.test)}
        shared = {pair.image.name for pair in pairs["train"]} & {pair.image.name for pair in pairs["test"]}
        if shared:
            raise InputError(
                f"voc-segmentation: {len(shared)} images are in both lists, {config.train} and {config.test}, such as "
                f"{min(shared)}"
            )
        self.examine(pairs)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, VocSegmentationConfig) or config.test != "val":
            return None
        train = {"train": 1_464, "trainaug": 10_582}.get(config.train)
        source = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
        return DataSizes(train, 1_449, len(CLASSES), config.channels, source=source, side=500) if train else None

    def read_annotation(self, path: Path, max_pixels: int) -> np.ndarray:
        return read_labels(path, len(CLASSES), False, max_pixels)

    def meaning(self) -> tuple[object, ...]:
        return ("voc-segmentation",)

    def no_class_note(self) -> str:
        return "all have 255, which is ignored"

    def _find_folder(self, root: Path) -> Path:
        """The folder with JPEGImages: `root`, or one within."""
        near = [root, *subfolders(root), *(inner for folder in subfolders(root) for inner in subfolders(folder))]
        needed = ("JPEGImages", "ImageSets/Segmentation", self.config.annotations)
        folders = [each for each in near if all((each / name).is_dir() for name in needed)]
        if len(folders) == 1:
            return folders[0]
        if folders:
            names = listed([printable(each) for each in folders])
            raise InputError(
                f"voc-segmentation: data.root {printable(root)} holds several VOC folders: {names}; name one"
            )
        raise InputError(
            f"voc-segmentation: neither {printable(root)} nor a folder in it has {', '.join(needed)}: pass "
            "--set task.data.root=PATH of VOC2012"
        )

    def _paired(self, name: str) -> list[Pair]:
        path = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        if not path.is_file():
            raise InputError(
                f"voc-segmentation: there is no list {printable(path)}; data.train and data.test name lists"
            )
        stems = list(dict.fromkeys(line.split()[0] for line in read_text(path).splitlines() if line.strip()))
        if not stems:
            raise InputError(f"voc-segmentation: the list {printable(path)} is empty")
        return [Pair(self._file("JPEGImages", f"{stem}.jpg", name), self._label_file(stem, name)) for stem in stems]

    def _label_file(self, stem: str, list_name: str) -> ImageFile:
        return self._file(self.config.annotations, f"{stem}.png", list_name)

    def _file(self, folder: str, name: str, list_name: str) -> ImageFile:
        try:
            return image_file(f"{folder}/{name}", self.root)
        except OSError as error:
            raise InputError(
                f"voc-segmentation: {quoted(f'{folder}/{name}')}, which the list {list_name} names, does not exist in "
                f"{printable(self.root)}"
            ) from error
