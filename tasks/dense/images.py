"""Images with a value per pixel, resized and augmented together, as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mimbench.api import (
    BatchIndices,
    EpochSampler,
    InputError,
    fork_rng,
    get_rank,
    get_world_size,
    ignore_stop_signals,
    image_seed,
    own_share,
    read_sized,
)
from mimbench_tasks.dense.config import FrozenMapsConfig, PixelAugmentation

_TRIES = 10
"""Crops that are drawn before one with too much of one class is taken."""


class PixelSplit(Protocol):
    """What SemanticSplit and DepthSplit have in common."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Path: ...

    def shape(self, index: int) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Sample:
    """An image as the encoder sees it, and what is known of its pixels."""

    index: int
    image: Tensor
    """uint8 [C, H, W]."""
    target: Tensor
    """[H, W] in training; of the original image at evaluation."""


class PixelImages(TorchDataset):
    """images[pick] -> list of Sample.

    In training, image and target are augmented together from (seed, epoch, index) alone. At evaluation the image is
    resized and the target stays as it is.
    """

    def __init__(
        self,
        split: PixelSplit,
        read_target: Callable[[int], Tensor],
        config: FrozenMapsConfig,
        *,
        channels: int,
        unknown: float,
        indices: Sequence[int] | None = None,
        augmentation: PixelAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            split: the images.
            read_target: index -> [H, W] at the size of the image.
            channels: what the encoder takes, 1 or 3.
            unknown: value of pixels that padding adds to a target.
            indices: the images that count, in this order; None: all.
            augmentation: of training images; None: evaluation.
            seed: of the augmentation.
        """
        self.split, self.read_target, self.config = split, read_target, config
        self.channels, self.unknown, self.augmentation, self.seed = channels, unknown, augmentation, seed
        self.indices = list(range(len(split)) if indices is None else indices)
        from torchvision.transforms import v2  # slow to import

        self._photometric = v2.RandomPhotometricDistort()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, pick: BatchIndices) -> list[Sample]:
        return [self.sample(place, pick.epoch) for place in pick.indices.tolist()]

    def sample(self, place: int, epoch: int = 0) -> Sample:
        """The image at `place` of `indices`, as `epoch` sees it.

        Raises:
            InputError: the file cannot be read, with its name.
        """
        index = self.indices[place]
        target = self.read_target(index)
        image = self._read(index)
        if self.augmentation is None:
            return Sample(index, self._resized(image, 1.0), target)
        with fork_rng(image_seed(self.seed, epoch, index)):
            return Sample(index, *self._augmented(image, target, self.augmentation))

    def without_augmentation(self) -> PixelImages:
        """The same images as they are evaluated."""
        return PixelImages(
            self.split,
            self.read_target,
            self.config,
            channels=self.channels,
            unknown=self.unknown,
            indices=self.indices,
        )

    def one_size(self) -> bool:
        """Whether the encoder sees all images at one size at evaluation."""
        if self.config.image_size and not self.config.keep_aspect:
            return True
        return len({self.split.shape(index) for index in self.indices}) == 1

    def training_loader(self, batch_size: int, *, workers: int, pin_memory: bool) -> DataLoader:
        """This process's whole batches of an epoch, shuffled by (seed, epoch): (images, targets), stacked.

        batch_size: of one process.
        """
        sampler = EpochSampler(len(self), batch_size, self.seed, get_rank(), get_world_size())
        return self._loader(sampler, workers, pin_memory, stack)

    def evaluation_loader(self, *, pin_memory: bool, share: bool = True) -> DataLoader:
        """Every image once, in order; one per batch if their sizes differ.

        share: processes share the batches; otherwise each of them sees all.
        """
        size = self.config.batch if self.one_size() else 1
        picks = [BatchIndices(0, indices) for indices in torch.arange(len(self)).split(size)]
        return self._loader(own_share(picks) if share else picks, self.config.workers, pin_memory, list)

    def _loader(
        self, sampler: Iterable[BatchIndices], workers: int, pin_memory: bool, collate: Callable[[Any], Any]
    ) -> DataLoader:
        return DataLoader(
            self,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=collate,
            worker_init_fn=ignore_stop_signals,
        )

    def _read(self, index: int) -> Tensor:
        path, (height, width) = self.split.image(index), self.split.shape(index)
        try:
            pixels = read_sized(path, self.channels, (width, height))
        except InputError:
            raise
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise InputError(f"cannot read the image {path}: {error}") from error
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)

    def _resized(self, image: Tensor, factor: float) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        if self.config.image_size is None:
            return image
        return F.resize(image, list(self._size(image, factor)), antialias=True)

    def _size(self, image: Tensor, factor: float) -> tuple[int, int]:
        """Height and width that the image is resized to."""
        side = max(1, round((self.config.image_size or 0) * factor))
        if not self.config.keep_aspect:
            return side, side
        height, width = image.shape[-2:]
        short = min(height, width)
        return max(1, round(height * side / short)), max(1, round(width * side / short))

    def _augmented(self, image: Tensor, target: Tensor, options: PixelAugmentation) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2
        from torchvision.transforms.v2 import functional as F

        low, high = options.scale_jitter
        image = self._resized(image, _uniform(low, high))
        target = resize_nearest(target, image.shape[-2:])
        if options.rotate and _uniform(0, 1) < 0.5:
            angle = _uniform(-options.rotate, options.rotate)
            image = F.rotate(image, angle, interpolation=v2.InterpolationMode.BILINEAR)
            target = F.rotate(target[None], angle, interpolation=v2.InterpolationMode.NEAREST, fill=self.unknown)[0]
        if self.config.crop_size is not None:
            image, target = self._cropped(image, target, self.config.crop_size, options.most_of_crop)
        if options.flip and _uniform(0, 1) < options.flip:
            image, target = image.flip(-1), target.flip(-1)
        if options.photometric and self.channels == 3:
            image = self._photometric(image)
        if options.colour and _uniform(0, 1) < 0.5:
            image = _recoloured(image)
        return image.contiguous(), target.contiguous()

    def _cropped(self, image: Tensor, target: Tensor, size: tuple[int, int], most: float) -> tuple[Tensor, Tensor]:
        from torchvision.transforms.v2 import functional as F

        height, width = (max(side, least) for side, least in zip(image.shape[-2:], size, strict=True))
        padding = [0, 0, width - image.shape[-1], height - image.shape[-2]]
        # With the image's mean colour, so that a border is no strong edge.
        image = F.pad(image, padding, fill=[float(value) for value in image.float().mean((1, 2)).round()])
        target = F.pad(target[None], padding, fill=self.unknown)[0]
        for _ in range(_TRIES):
            top = int(torch.randint(height - size[0] + 1, ()))
            left = int(torch.randint(width - size[1] + 1, ()))
            part = F.crop(target, top, left, *size)
            if most == 1 or not _is_mostly_one(part, self.unknown, most):
                break
        return F.crop(image, top, left, *size), part


def stack(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and targets [B, H, W] of samples of one size."""
    return torch.stack([one.image for one in samples]), torch.stack([one.target for one in samples])


def resize_nearest(values: Tensor, size: Sequence[int]) -> Tensor:
    """[H, W] -> [*size]: each pixel has the value at its centre, as with Pillow's NEAREST."""
    rows, columns = (
        (2 * torch.arange(count) + 1) * extent // (2 * count) for count, extent in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def _is_mostly_one(labels: Tensor, unknown: float, most: float) -> bool:
    """Whether one class has more than the share `most` of the known pixels, or is the only one."""
    known = labels[labels != unknown]
    counts = known.unique(return_counts=True)[1]
    return len(counts) < 2 or int(counts.max()) > most * len(known)


def _recoloured(image: Tensor) -> Tensor:
    gamma, brightness = _uniform(0.9, 1.1), _uniform(0.75, 1.25)
    channels = torch.empty(len(image), 1, 1).uniform_(0.9, 1.1)
    pixels = (image / 255).pow(gamma) * brightness * channels
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
