"""What a loader's item is made of: the images of one batch, read, cropped and stacked."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from mimbench.contract import ArraySplit, ImageSplit, InputConfig
from mimbench.data.pipeline.augment import Augment
from mimbench.data.pipeline.encoded import EncodedBatch, EncodedSplit
from mimbench.data.pipeline.transforms import TrainingCrop, evaluation_crop, to_byte_scale
from mimbench.data.pipeline.view_schedule import Views, views_at
from mimbench.seeds import derive_seed, fork_rng, image_seed


class BatchIndices(NamedTuple):
    """The images of one batch. The epoch is part of it because persistent workers get no other message.

    The sizes of the views follow from it, too.
    """

    epoch: int
    indices: Tensor
    copies: Tensor | None = None
    """int64, how often this epoch has drawn the image before: repeated augmentation draws it several times, each time
    with crops of its own. None: never."""

    def draws(self) -> list[tuple[int, int]]:
        """(index, copy) of each image."""
        copies = torch.zeros_like(self.indices) if self.copies is None else self.copies
        return list(zip(self.indices.tolist(), copies.tolist(), strict=True))


class ArrayBatches(TorchDataset[tuple[Tensor, Tensor]]):
    def __init__(self, split: ArraySplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        images = self.split.images[batch.indices]
        return to_byte_scale(images, self.split.pixel_range), self.split.labels[batch.indices]


class EvaluationBatches(TorchDataset[tuple[Tensor, Tensor]]):
    """Images of any size, resized and centrally cropped."""

    def __init__(self, split: ImageSplit, input_config: InputConfig) -> None:
        self.split, self.input = split, input_config

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        loaded = [self.split[index] for index in batch.indices.tolist()]
        images = [
            evaluation_crop(to_byte_scale(image, self.split.pixel_range), self.input, self.split.crop_position)
            for image, _ in loaded
        ]
        return torch.stack(images), torch.tensor([label for _, label in loaded])


class AugmentedBatches(TorchDataset[tuple[Any, Tensor]]):
    """Images of any size, cropped and augmented; one tensor, or a tuple with one tensor per view.

    View v > 0 of an image is drawn from (seed, epoch, index, v), the first view from (seed, epoch, index); those of
    further copies from (seed, epoch, index, v, copy).
    """

    def __init__(self, split: ImageSplit, seed: int, views: Views, augment: Augment | None) -> None:
        """augment: instead of the crops of `views`."""
        self.split, self.seed, self.views, self.augment = split, seed, views, augment

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Any, Tensor]:
        images: list[list[Tensor]] = []
        labels = []
        augments: tuple[Augment, ...] = (self.augment,) if self.augment else _crops(views_at(self.views, batch.epoch))
        for index, copy in batch.draws():
            image, label = self.split.draw(index, self._generator(batch.epoch, index, copy))
            image = to_byte_scale(image, self.split.pixel_range)
            seeds = (view_seed(self.seed, batch.epoch, index, view, copy) for view in range(len(augments)))
            images.append([_augmented(image, *pair) for pair in zip(augments, seeds, strict=True)])
            labels.append(label)
        return stack_views(images), torch.tensor(labels)

    def _generator(self, epoch: int, index: int, copy: int) -> torch.Generator:
        """What chooses the frames of a clip, apart from the stream that crops it."""
        parts = (epoch, index, copy) if copy else (epoch, index)
        return torch.Generator().manual_seed(derive_seed("frames", self.seed, *parts))


class ScaledBatches(TorchDataset[tuple[Any, Tensor]]):
    """As `AugmentedBatches` with the same crops, of JPEGs that are decoded at reduced sides if all crops permit it."""

    def __init__(self, split: EncodedSplit, seed: int, views: Views) -> None:
        self.split, self.seed, self.views = split, seed, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Any, Tensor]:
        crops = _crops(views_at(self.views, batch.epoch))
        images = [self._views(crops, batch.epoch, index, copy) for index, copy in batch.draws()]
        return stack_views(images), self.split.labels[batch.indices]

    def _views(self, crops: tuple[TrainingCrop, ...], epoch: int, index: int, copy: int) -> list[Tensor]:
        seeds = [view_seed(self.seed, epoch, index, view, copy) for view in range(len(crops))]

        def reduction(height: int, width: int) -> int:
            factors = []
            for crop, seed in zip(crops, seeds, strict=True):
                with fork_rng(seed):
                    factors.append(crop.reduction(height, width))
            return min(factors)

        image, size = self.split.read_reduced(index, reduction)
        views = []
        for crop, seed in zip(crops, seeds, strict=True):
            with fork_rng(seed):
                views.append(crop.from_reduced(image, size))
        return views


class EncodedBatches(TorchDataset[tuple[EncodedBatch, Tensor]]):
    """Files as they are, with the crops and flips of `AugmentedBatches`, for a device that decodes and crops."""

    def __init__(self, split: EncodedSplit, seed: int, views: Views) -> None:
        self.split, self.seed, self.views = split, seed, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[EncodedBatch, Tensor]:
        crops = _crops(views_at(self.views, batch.epoch))
        files = [self.split.read_encoded(index) for index in batch.indices.tolist()]
        boxes, mirrors = [], []
        for view, crop in enumerate(crops):
            for (index, copy), file in zip(batch.draws(), files, strict=True):
                with fork_rng(view_seed(self.seed, batch.epoch, index, view, copy)):
                    boxes.append(crop.box(*file.size))
                    mirrors.append(crop.is_mirrored())
        shape = (len(crops), len(files))
        images = EncodedBatch.join(files, torch.tensor(boxes).view(*shape, 4), torch.tensor(mirrors).view(shape))
        return images, self.split.labels[batch.indices]


def view_seed(seed: int, epoch: int, index: int, view: int, copy: int = 0) -> int:
    """The seed of the crop and the augmentation of one view of one copy of an image."""
    if copy:
        return image_seed(seed, epoch, index, view, copy)
    return image_seed(seed, epoch, index, view) if view else image_seed(seed, epoch, index)


def _augmented(image: Tensor, augment: Augment, seed: int) -> Tensor:
    with fork_rng(seed):
        return augment(image)


def stack_views(images: list[list[Tensor]]) -> Any:
    """Views by image -> one tensor of all images per view; the tensor itself if there is one view."""
    views = tuple(torch.stack(view) for view in zip(*images, strict=True))
    return views[0] if len(views) == 1 else views


@lru_cache
def _crops(views: tuple[InputConfig, ...]) -> tuple[TrainingCrop, ...]:
    return tuple(TrainingCrop(view) for view in views)
