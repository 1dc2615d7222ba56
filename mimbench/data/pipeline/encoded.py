"""Images as encoded files, of which a loader decodes no more than it needs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import DataConfig, ImageSplit, RunError, added
from mimbench.data.files.image_reading import PixelPolicy, Reduction, Source, read_pixels, read_reduced

Decoding = Literal["full", "scaled", "device"]


class EncodedConfig(DataConfig):
    """Options of every set of encoded images."""

    decode: Decoding = added("full")
    """How a pretraining decodes images. full: whole, by the loader's workers. scaled: JPEGs at a half, a fourth or an
    eighth of their sides if the crop stays as large as the image size. device: JPEGs and their crops on the CUDA
    device (nvJPEG). Other than full, it is part of the pretraining's fingerprint; tasks always decode in full."""


def decoding_of(config: DataConfig) -> Decoding:
    """How a pretraining decodes the images of a dataset with these options."""
    return config.decode if isinstance(config, EncodedConfig) else "full"


class EncodedSplit(ImageSplit):
    """Images of any size in encoded form: uint8 [channels, H, W] when they are read.

    Attributes:
        channels: of the images, 1 or 3.
        policy: how stored values become grey levels.
    """

    channels: int
    policy: PixelPolicy

    @abstractmethod
    def source(self, index: int) -> Source:
        """The file of an image, or a stream of its bytes from its start."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Where an image lies, for messages."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Raises RunError, which names the image, if it cannot be read."""
        try:
            pixels = read_pixels(self.source(index), self.channels, self.policy)
        except Exception as error:
            raise self.failure(index, error) from error
        return to_image(pixels), int(self.labels[index])

    def read_reduced(self, index: int, reduction: Reduction) -> tuple[Tensor, tuple[int, int]]:
        """An image [channels, h, w] whose sides may be reduced, and height and width of the whole image.

        Raises:
            RunError: as `split[index]`.
        """
        try:
            pixels, size = read_reduced(self.source(index), self.channels, self.policy, reduction)
        except Exception as error:
            raise self.failure(index, error) from error
        return to_image(pixels), size

    def failure(self, index: int, error: Exception) -> RunError:
        return RunError(f"cannot read the image {self.place(index)}: {error}")


def to_image(pixels: np.ndarray) -> Tensor:
    """Pixels [H, W, C] as [C, H, W]. A channels-last view: torchvision resizes it several times faster."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
