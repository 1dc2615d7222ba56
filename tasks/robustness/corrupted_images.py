"""Test images under every corruption, as the encoder gets them, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mimbench.api import ImageSplit, InputConfig, evaluation_crop, image_grid, own_share, to_byte_scale
from mimbench_tasks.robustness.corruptions import corrupt
from mimbench_tasks.robustness.severities import CORRUPTIONS, JPEG_QUALITY, constants_for

SHOWN_SIDE = 112
"""Larger images are reduced to this side in px in the picture, since noise makes PNGs large."""


def choose_images(images: int, limit: int) -> np.ndarray:
    """Sorted indices of at most `limit` of `images` images, the same for every method and seed."""
    # The stream of RandomState is frozen, so the choice is the same with every numpy release.
    return np.sort(np.random.RandomState(0).permutation(images)[:limit])


class CorruptedImages(TorchDataset[Tensor]):
    """Some images of a split, each under every corruption: uint8 [corruptions x severities, C, h, w].

    Images of an ArraySplit are corrupted as they lie; others are resized and cropped to input.image_size first, see
    `as_published`.
    """

    def __init__(
        self,
        split: ImageSplit,
        places: Sequence[int],
        input_config: InputConfig,
        severities: Sequence[int],
        *,
        quality: int | None = None,
        crop: str = "published",
    ) -> None:
        """quality, crop: RobustnessConfig's jpeg_quality and crop."""
        self.split, self.places, self.severities = split, list(places), severities
        self.input = as_published(input_config) if crop == "published" else input_config
        height, width = self.clean(self.places[0]).shape[1:]
        self.constants = constants_for(height, width)[0]
        """Name of the published set whose constants suit the images."""
        self.side = min(height, width)
        self.quality = JPEG_QUALITY[self.constants] if quality is None else quality

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        place = self.places[index]
        image = self.clean(place).numpy()
        views = [
            corrupt(image, name, severity, place, quality=self.quality)
            for name in CORRUPTIONS
            for severity in self.severities
        ]
        return torch.from_numpy(np.stack(views))

    def clean(self, place: int) -> Tensor:
        """uint8 [C, h, w]: the image at a place in the split, as it is before it is corrupted."""
        image = to_byte_scale(self.split[place][0], self.split.pixel_range).round().to(torch.uint8)
        return image if self.split.is_in_memory else evaluation_crop(image, self.input)

    def loader(self, device: torch.device, workers: int) -> DataLoader[Tensor]:
        """One image at a time, in order: the share of this rank."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=own_share(range(len(self))),
            num_workers=workers,
            pin_memory=device.type == "cuda",
            # Its own, so that starting workers draws nothing from the global generator.
            generator=torch.Generator().manual_seed(0),
        )


def as_published(input_config: InputConfig) -> InputConfig:
    """How images of files are brought to input.image_size where ImageNet-C's constants are for that size.

    The shorter side to size x 256 / 224 by bilinear resampling, then the central crop, whatever the recipe says
    (hendrycks/robustness@e0377d46 ImageNet-C/create_c/make_imagenet_c.py). The other sets are of images as they lie,
    so there it is the recipe's.
    """
    if constants_for(input_config.image_size, input_config.image_size)[0] != "ImageNet-C":
        return input_config
    return input_config.model_copy(update={"eval_interpolation": "bilinear", "eval_resize": None})


def draw_corruptions(images: CorruptedImages, *, footnote: str) -> bytes:
    """A PNG of the first image, with one row per corruption and one column per severity."""
    clean, views = _shown(images.clean(images.places[0])), _shown(images[0])
    columns = len(images.severities)
    rows = [[clean, *views[start : start + columns]] for start in range(0, len(views), columns)]
    headings = ["clean", *(f"severity {severity}" for severity in images.severities)]
    labels = [name.replace("_", " ") for name in CORRUPTIONS]
    return image_grid(rows, columns=headings, labels=labels, title="One test image, corrupted", footnote=footnote)


def _shown(images: Tensor) -> Tensor:
    """uint8 [..., C, h, w] -> float in [0, 1], reduced."""
    if min(images.shape[-2:]) > SHOWN_SIDE:
        from torchvision.transforms.v2 import functional as F  # slow to import

        images = F.resize(images, [SHOWN_SIDE], antialias=True)
    return images / 255
