"""Batches of a training of heads: images that the encoder sees in each step, or maps that were made once before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mimbench.api import (
    BatchIndices,
    EpochSampler,
    InputError,
    TaskContext,
    TrainConfig,
    get_rank,
    get_world_size,
    identity_collate,
    map_over_ranks,
)
from mimbench_tasks.dense.config import FrozenMapsConfig, PixelAugmentation
from mimbench_tasks.dense.images import PixelImages, Sample, resize_nearest, stack
from mimbench_tasks.dense.maps import FrozenMaps

KEPT_LIMIT = 1 << 30
"""Bytes of maps that a process keeps in memory. Larger ones are made anew in each step."""

Seeing = Callable[[Any], list[Tensor]]
"""What a loader yields, on the device -> maps [B, D, h, w]."""


class KeptMaps(TorchDataset):
    """The maps of all training images, made once, since no image is augmented.

    They are made in the same batches on any number of processes and after an interruption, and so have the same bits.
    """

    def __init__(self, maps: FrozenMaps, images: PixelImages) -> None:
        """images: without augmentation."""
        plain = images.without_augmentation()

        def make(samples: list[Sample]) -> tuple[list[Tensor], Tensor]:
            seen, _ = stack(samples)
            size = seen.shape[-2:]
            targets = torch.stack([resize_nearest(sample.target, size) for sample in samples])
            return [each.cpu() for each in maps(seen.to(maps.device))], targets

        parts = map_over_ranks(make, plain.evaluation_loader(pin_memory=False))
        self.maps = [torch.cat(layer) for layer in zip(*(part[0] for part in parts), strict=True)]
        self.targets = torch.cat([part[1] for part in parts])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, pick: BatchIndices) -> tuple[list[Tensor], Tensor]:
        return [layer[pick.indices] for layer in self.maps], self.targets[pick.indices]


def training_batches(
    maps: FrozenMaps, images: PixelImages, train: TrainConfig, context: TaskContext
) -> tuple[DataLoader, Seeing]:
    """A loader of (input, targets [B, H, W]), and the function from this input to maps."""
    batch, on_cuda = train.micro_batch(get_world_size()), context.device.type == "cuda"
    if not is_fixed(images.config, images.augmentation) or bytes_of(maps, _size(images), len(images)) > KEPT_LIMIT:
        # A function, since a module would become a part of the model that is trained and saved.
        return images.training_loader(batch, workers=train.workers, pin_memory=on_cuda), maps.forward
    stored = KeptMaps(maps, images)
    sampler = EpochSampler(len(stored), batch, context.seed, get_rank(), get_world_size())
    loader = DataLoader(stored, batch_size=None, sampler=sampler, collate_fn=identity_collate, pin_memory=on_cuda)
    return loader, list


def is_fixed(config: FrozenMapsConfig, augmentation: PixelAugmentation | None) -> bool:
    """Whether each epoch shows the same images at the same size."""
    return augmentation == PixelAugmentation() and config.crop_size is None


def bytes_of(maps: FrozenMaps, size: tuple[int, int], images: int) -> int:
    """Of the maps of so many images of this height and width, in float32."""
    return images * sum(4 * math.prod(shape) for shape in maps.shapes(size))


def _size(images: PixelImages) -> tuple[int, int]:
    height, width = images.without_augmentation().sample(0).image.shape[-2:]
    return height, width


def check_one_size(config: FrozenMapsConfig, images: PixelImages) -> None:
    """Raise InputError if training images do not have one size."""
    options = images.augmentation or PixelAugmentation()
    has_one_size = images.one_size() and options.scale_jitter == (1.0, 1.0)
    if config.crop_size is None and not has_one_size:
        raise InputError(
            "training images have several sizes, and a batch has one: set task.crop_size, or task.image_size with "
            "task.keep_aspect=false and without task.augmentation.scale_jitter"
        )
