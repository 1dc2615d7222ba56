"""The dataset contract: splits of labelled images, of scenes with boxes, or of images with a value per pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimbench.contract.config import Config, added, cosmetic
from mimbench.contract.planned import DataSizes

SplitName = str
"""Name of a split: "train", "test", or another one of `Dataset.parts`."""
BYTES = (0.0, 255.0)
NO_ATTRIBUTES: Mapping[str, Tensor] = MappingProxyType({})


class DataConfig(Config):
    """Options that every dataset has; a dataset's own Config extends it."""

    root: Path | None = cosmetic(None)
    """Folder of the files; embedded datasets need none. Fingerprints depend on the content, not on the path."""
    validation_share: float = added(0.0, ge=0, lt=1)
    """Share of the training split that is held out, and scored in place of the test split. Choose settings on it."""

    def shaping_of_training(self) -> dict[str, Any]:
        """The options, other than their defaults, that shape a pretraining but not the content of the data.

        They enter the fingerprint of pretrainings, not that of the dataset.
        """
        return {}


class ImageSplit(torch.utils.data.Dataset, ABC):
    """Labelled images of any sizes: `split[i]` is (image [C, H, W], label). Pixels are uint8, uint16 or float32.

    A dataset with `frames` above 1 has clips [C, T, H, W] instead, T = frames. All else holds for clips as for images.

    Attributes:
        pixel_range: pixel values of black and of full brightness. It is (0, 255) for uint8 pixels.
        labels: int64 [N].
        classes: class names, indexed by label.
        attributes: what else is known of each sample, such as its background or group: int64 [N] by name.
        object_masks: which pixels show the object that the label names, bool [N, H, W], if that is known and all images
            have one size.
        shards: int64 [N], number of the file that holds each sample, if many samples share a file and are best read
            together. A training then goes through the files in a drawn order, `open_shards` at a time, and shuffles
            the samples of these together. None: all samples of an epoch are shuffled together.
        open_shards: files whose samples are shuffled together.
        has_test_clips: whether samples are cut out of longer videos, so that `test_clip` gives several of each.
        crop_position: where on the longer side an evaluation crop lies that the loader's workers cut: from 0 (left or
            top) to 1; 0.5 is the centre.
    """

    labels: Tensor
    classes: tuple[str, ...]
    attributes: Mapping[str, Tensor] = NO_ATTRIBUTES
    object_masks: Tensor | None = None
    pixel_range: tuple[float, float] = BYTES
    shards: Tensor | None = None
    open_shards: int = 1
    has_test_clips: bool = False
    crop_position: float = 0.5

    @property
    def is_in_memory(self) -> bool:
        """Whether whole batches are cropped on the device (an ArraySplit), and not single images by the workers."""
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def file_name(self, index: int) -> str:
        """Name of the file of the sample at `index`, without folders, as lists of images name it; "" if it has none."""
        return ""

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        """The sample at `index` for one training step. The default is `split[index]`.

        Override it to draw which frames of a longer video make the clip. Evaluation reads `split[index]`. Of an
        ArraySplit, samples are not drawn.

        Args:
            generator: on the CPU, seeded by the run's seed, the epoch and `index`.
        """
        return self[index]

    def test_clip(self, index: int, clip: int, clips: int) -> tuple[Tensor, int]:
        """One of `clips` clips of the video at `index`, which together cover it. Of 1 clip it is `split[index]`.

        Override it, and set `has_test_clips`, if samples are cut out of longer videos.

        Args:
            clip: from 0.
        """
        return self[index]


class ArraySplit(ImageSplit):
    """Images or clips of one size, held in memory. Whole batches of them are augmented on the device."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        attributes: Mapping[str, Tensor] = NO_ATTRIBUTES,
        pixel_range: tuple[float, float] = BYTES,
        object_masks: Tensor | None = None,
    ) -> None:
        """Hold images [N, C, H, W], or clips [N, C, T, H, W], and labels int64 [N].

        `classes` are names, indexed by label.
        """
        self.images, self.labels, self.classes, self.attributes = images, labels, classes, attributes
        self.pixel_range, self.object_masks = pixel_range, object_masks

    @property
    def is_in_memory(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class SceneSplit:
    """Scenes with boxes, and possibly object masks: a COCO-format annotation file and a folder of images.

    pycocotools and mmdet read the file, so it must suit both: annotation ids are whole numbers from 1, every object
    has "area" and "iscrowd", and categories are in the order of their ids and equal in both splits. Labels follow
    that order. Width and height are those of the image that the boxes refer to, before or after its EXIF rotation.
    `mimbench.api.coco_split` checks a file and repairs a copy of it.
    """

    annotations: Path
    images: Path
    classes: tuple[str, ...]
    count: int
    """Number of scenes in the file."""

    def __len__(self) -> int:
        return self.count


class SemanticSplit(ABC):
    """Images of any sizes with one class per pixel.

    Attributes:
        classes: class names, indexed by label; at most 255.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Path:
        """File of the image at `index`."""

    @abstractmethod
    def shape(self, index: int) -> tuple[int, int]:
        """Height and width in px of the image at `index`."""

    @abstractmethod
    def labels(self, index: int) -> Tensor:
        """Class of each pixel, uint8 [H, W]. Pixels of unknown class are 255, and are neither trained on nor scored."""

    def counts(self) -> Tensor:
        """Number of pixels per class in the whole split, int64 [classes]."""
        total = torch.zeros(256, dtype=torch.long)
        for index in range(len(self)):
            total += torch.bincount(self.labels(index).flatten().long(), minlength=256)
        return total[: len(self.classes)]


class DepthSplit(ABC):
    """Images of any sizes with the depth of each pixel.

    Attributes:
        max_depth: the greatest depth that the dataset measures, m.
    """

    max_depth: float

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Path:
        """File of the image at `index`."""

    @abstractmethod
    def shape(self, index: int) -> tuple[int, int]:
        """Height and width in px of the image at `index`."""

    @abstractmethod
    def depth(self, index: int) -> Tensor:
        """Depth of each pixel in m, float32 [H, W]. Pixels without a reading are 0, and count nowhere."""


class Dataset(ABC):
    """A dataset: a train and a test split, and a fingerprint of their content."""

    name: ClassVar[str]
    provides: frozenset[str] = frozenset({"images", "labels"})
    """What the splits hold: "images", "labels", "attributes" and "object-masks" (ImageSplit), "boxes" and "masks"
    (SceneSplit), "masks" only (SemanticSplit), or "depth" (DepthSplit). The class states the usual case; an instance
    may provide less if its data does."""
    parts: tuple[SplitName, ...] = ("train", "test")
    """Names of all splits. "train" and "test" are required. Others, such as "validation", are used by tasks that name
    them."""
    waivers: ClassVar[Mapping[str, str]] = {}
    """Checks of `mimbench check` that may fail for this plugin: name of the check -> reason."""
    Config: ClassVar[type[DataConfig]] = DataConfig

    channels: int
    """Channels of the images: 1 (grey), 3 (RGB) or any other number."""
    frames: int = 1
    """Frames of each clip; 1 if the splits hold images. The recipe's input.frames must agree."""
    notes: tuple[str, ...] = ()
    """Lines that are printed about the data, such as files that are skipped."""
    facts: Mapping[str, Any] = {}
    """How the data was read, for the record, as plain JSON data."""

    def __init__(self, config: DataConfig, cache: Path) -> None:
        """Find the data.

        Args:
            config: the dataset's options.
            cache: folder for files derived from the data.

        Raises:
            MissingData: the files are not on this machine; the message says what to do.
            InputError: the data is unreadable, or an option does not suit it.
        """
        self.config = config
        self.cache = cache

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        """Numbers of a set that is the same everywhere, for `mimbench plan` on a machine without it; None: not known.

        Args:
            config: an instance of `Config`. It names no `root`.
        """
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the content. Equal content gives an equal digest on every machine."""

    @abstractmethod
    def split(self, name: SplitName) -> ImageSplit | SceneSplit | SemanticSplit | DepthSplit:
        """The split of this name, one of `parts`."""
