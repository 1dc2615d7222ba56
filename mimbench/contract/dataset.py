"""The dataset contract: splits of images with labels, of scenes with boxes, or of images with a class a pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mimbench.contract.config import Config, cosmetic

SplitName = Literal["train", "test"]


class DataConfig(Config):
    """Options that every dataset has; a dataset's own Config extends it."""

    root: Path | None = cosmetic(None)
    """Where the files are; embedded sets need none. The content, not the path, enters fingerprints."""


class ImageSplit(torch.utils.data.Dataset, ABC):
    """Labelled images: split[i] -> (uint8 [C, H, W], label). Sizes may differ between images.

    labels: int64 [N]. classes: names, indexed by label.
    """

    labels: Tensor
    classes: tuple[str, ...]

    @property
    def is_in_memory(self) -> bool:
        """Whether it is an ArraySplit, whose batches are cropped on the device and not by the loader's workers."""
        return isinstance(self, ArraySplit)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class ArraySplit(ImageSplit):
    """Images of one size held in memory, so that whole batches are augmented on the device."""

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        """images: uint8 [N, C, H, W]; labels: int64 [N]."""
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class SceneSplit:
    """Scenes with boxes (and masks): a COCO-format annotation file and its folder of images.

    pycocotools and mmdet read the file as it is, so it must suit both: whole numbers from 1 as annotation ids, "area"
    and "iscrowd" of every object, and categories in the order of their ids, the same in both splits. Labels follow
    that order. Width and height are those of the image as stored, or as EXIF turns it, whichever boxes refer to.
    `mimbench.data.coco_split` checks a file, and mends a copy.
    """

    annotations: Path
    images: Path
    classes: tuple[str, ...]
    count: int
    """Scenes that the file lists."""

    def __len__(self) -> int:
        return self.count


class SemanticSplit(ABC):
    """Images of any size with a class for every pixel.

    classes: names, indexed by label, at most 255.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Path:
        """The image's file."""

    @abstractmethod
    def shape(self, index: int) -> tuple[int, int]:
        """Height and width, px."""

    @abstractmethod
    def labels(self, index: int) -> Tensor:
        """uint8 [H, W]: the class of each pixel; 255 where it is unknown, which is neither trained on nor scored."""

    def counts(self) -> Tensor:
        """int64 [classes]: pixels of each class in the whole split."""
        total = torch.zeros(256, dtype=torch.long)
        for index in range(len(self)):
            total += torch.bincount(self.labels(index).flatten().long(), minlength=256)
        return total[: len(self.classes)]


class Dataset(ABC):
    """A dataset: a train and a test split, and a fingerprint of their content."""

    name: ClassVar[str]
    provides: frozenset[str] = frozenset({"images", "labels"})
    """What its splits carry: "images" and "labels" (ImageSplit), "boxes" and "masks" (SceneSplit), or "masks" alone
    (SemanticSplit).

    A class states what it offers as a rule; an instance may find that its data holds less."""
    Config: ClassVar[type[DataConfig]] = DataConfig

    channels: int
    """1 (grey), 3 (RGB), or any other number of bands."""
    notes: tuple[str, ...] = ()
    """Lines to the person at the terminal about what was found, such as files that are left out."""
    facts: Mapping[str, Any] = {}
    """What records say about how the data was read, as plain JSON data."""

    def __init__(self, config: DataConfig, cache: Path) -> None:
        """Find the data; `cache` is a folder where derived files may be kept.

        Raises:
            InputError: the data is not there or not readable, with what to do.
        """
        self.config = config
        self.cache = cache

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the content: equal content, equal digest, on every machine."""

    @abstractmethod
    def split(self, name: SplitName) -> ImageSplit | SceneSplit | SemanticSplit: ...
