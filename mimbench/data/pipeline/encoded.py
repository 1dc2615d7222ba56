"""Images as encoded files, of which a loader decodes no more than it needs."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import DataConfig, ImageSplit, RunError, added
from mimbench.data.files.image_reading import (
    PixelPolicy,
    Reduction,
    Source,
    open_image,
    read_pixels,
    read_reduced,
    upright_size,
)
from mimbench.data.files.jpeg_headers import is_plain_jpeg

Decoding = Literal["full", "scaled", "device"]


class EncodedConfig(DataConfig):
    """Options of every set of encoded images."""

    decode: Decoding = added("full")
    """How a pretraining decodes images. full: whole, by the loader's workers. scaled: JPEGs at a half, a fourth or an
    eighth of their sides if the crop stays as large as the image size. device: JPEGs and their crops on the CUDA
    device (nvJPEG). Other than full, it is part of the pretraining's fingerprint; tasks always decode in full."""

    def shaping_of_training(self) -> dict[str, Any]:
        return {} if self.decode == "full" else {"decode": self.decode}


def decoding_of(config: DataConfig) -> Decoding:
    """How a pretraining decodes the images of a dataset with these options."""
    return config.decode if isinstance(config, EncodedConfig) else "full"


class EncodedFile(NamedTuple):
    """One image for a device to decode and crop."""

    data: Tensor
    """uint8 [bytes]: the file, or the pixels of [C, H, W] if the device cannot decode it."""
    size: tuple[int, int]
    """Height and width, px."""
    is_jpeg: bool
    """Whether `data` is a file."""
    channels: int
    place: str
    """Where the image lies, for messages."""


@dataclass(frozen=True)
class EncodedBatch:
    """Images of any sizes for a device to decode and crop, with the crops of all their views.

    It is no tuple: DistributedDataParallel would move the tensors of a tuple to the device, and decoders read files
    from main memory.
    """

    data: Tensor
    """uint8 [bytes]: one image after the other."""
    lengths: list[int]
    """Bytes of each image."""
    sizes: list[tuple[int, int]]
    """Height and width of each image, px."""
    is_jpeg: list[bool]
    channels: int
    boxes: Tensor
    """int64 [views, B, 4]: top, left, height and width, px."""
    mirrors: Tensor
    """bool [views, B]: whether the crop is flipped left to right."""
    places: list[str]

    @classmethod
    def join(cls, files: Sequence[EncodedFile], boxes: Tensor, mirrors: Tensor) -> EncodedBatch:
        return cls(
            data=torch.cat([file.data for file in files]),
            lengths=[len(file.data) for file in files],
            sizes=[file.size for file in files],
            is_jpeg=[file.is_jpeg for file in files],
            channels=files[0].channels,
            boxes=boxes,
            mirrors=mirrors,
            places=[file.place for file in files],
        )


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

    def read_encoded(self, index: int) -> EncodedFile:
        """The file of an image if it is a JPEG that devices decode as `split[index]` does, and else its pixels.

        Raises:
            RunError: as `split[index]`.
        """
        try:
            source = self.source(index)
            data = source.read_bytes() if isinstance(source, Path) else source.read()
            with open_image(io.BytesIO(data), self.policy.max_pixels) as image:
                size, is_jpeg = upright_size(image), is_plain_jpeg(image, self.channels) and not self.policy.range
            if is_jpeg:
                values = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            else:
                pixels = read_pixels(io.BytesIO(data), self.channels, self.policy)
                size, values = (pixels.shape[0], pixels.shape[1]), to_image(pixels).flatten()
        except Exception as error:
            raise self.failure(index, error) from error
        return EncodedFile(values, size, is_jpeg, self.channels, self.place(index))

    def failure(self, index: int, error: Exception) -> RunError:
        return RunError(f"cannot read the image {self.place(index)}: {error}")


def to_image(pixels: np.ndarray) -> Tensor:
    """Pixels [H, W, C] as [C, H, W]. A channels-last view: torchvision resizes it several times faster."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
