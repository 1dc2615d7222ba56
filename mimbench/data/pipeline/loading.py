"""Loaders: batches of images on the scale of bytes and labels, the same for every number of workers and ranks.

One loader item is one batch. Images in memory are indexed as a batch in the main process; others, and those that are
augmented one by one, are read, cropped and stacked by workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mimbench.contract import ArraySplit, ImageSplit, InputConfig
from mimbench.data.pipeline.augment import Augment
from mimbench.data.pipeline.encoded import Decoding, EncodedBatch, EncodedSplit
from mimbench.data.pipeline.transforms import TrainingCrop, check_eval_resize, evaluation_crop, to_byte_scale
from mimbench.data.pipeline.view_schedule import Views, views_at
from mimbench.errors import InputError
from mimbench.seeds import derive_seed, fork_rng, image_seed


class BatchIndices(NamedTuple):
    """The images of one batch. The epoch is part of it because persistent workers get no other message.

    The sizes of the views follow from it, too.
    """

    epoch: int
    indices: Tensor


class EpochSampler(Sampler[BatchIndices]):
    """Batches of one epoch, shuffled by (seed, epoch), incomplete ones dropped.

    Step k of all ranks together is what step k of one process with world_size x batch_size would be.
    mmengine's DistSamplerSeedHook calls `set_epoch` before each epoch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        shards: Tensor | None = None,
        open_shards: int = 1,
    ) -> None:
        """
        Args:
            shards: int64 [size], the file that holds each sample, or None; see `ImageSplit`.
            open_shards: files whose samples are shuffled together.

        Raises:
            InputError: `size` samples do not fill one batch on every rank.
        """
        self.shards, self.open_shards = shards, open_shards
        self.size, self.batch_size, self.seed, self.rank, self.world_size = size, batch_size, seed, rank, world_size
        self.epoch = self._skipped = 0
        if len(self) == 0:
            raise InputError(
                f"a batch of {batch_size * world_size} images is more than the {size} training images: "
                "lower its batch_size"
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def skip_next(self, batches: int) -> None:
        """Leave out the first `batches` the next time that this is iterated: an earlier run has seen them."""
        self._skipped = batches

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, first, self._skipped = self.epoch, self._skipped, 0
        order = self._order(torch.Generator().manual_seed(image_seed(self.seed, epoch)))
        for step in range(first, len(self)):
            start = (step * self.world_size + self.rank) * self.batch_size
            yield BatchIndices(epoch, order[start : start + self.batch_size])

    def _order(self, generator: torch.Generator) -> Tensor:
        """All samples of an epoch: shuffled together, or the files in a drawn order and the samples of a few of them
        shuffled together."""
        order = torch.randperm(self.size, generator=generator)
        if self.shards is None:
            return order
        numbers, shard_of = self.shards.unique(return_inverse=True)
        turn = torch.randperm(len(numbers), generator=generator) // self.open_shards
        return order[turn[shard_of[order]].argsort(stable=True)]


class _ArrayBatches(TorchDataset[tuple[Tensor, Tensor]]):
    def __init__(self, split: ArraySplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        images = self.split.images[batch.indices]
        return to_byte_scale(images, self.split.pixel_range), self.split.labels[batch.indices]


class _EvaluationBatches(TorchDataset[tuple[Tensor, Tensor]]):
    """Images of any size, resized and centrally cropped."""

    def __init__(self, split: ImageSplit, input_config: InputConfig) -> None:
        self.split, self.input = split, input_config

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        loaded = [self.split[index] for index in batch.indices.tolist()]
        images = [evaluation_crop(to_byte_scale(image, self.split.pixel_range), self.input) for image, _ in loaded]
        return torch.stack(images), torch.tensor([label for _, label in loaded])


class _AugmentedBatches(TorchDataset[tuple[Any, Tensor]]):
    """Images of any size, cropped and augmented; one tensor, or a tuple with one tensor per view.

    View v > 0 of an image is drawn from (seed, epoch, index, v), the first view from (seed, epoch, index).
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
        for index in batch.indices.tolist():
            image, label = self.split.draw(index, self._generator(batch.epoch, index))
            image = to_byte_scale(image, self.split.pixel_range)
            images.append([self._augmented(image, augments, batch.epoch, index, view) for view in range(len(augments))])
            labels.append(label)
        return stack_views(images), torch.tensor(labels)

    def _generator(self, epoch: int, index: int) -> torch.Generator:
        """What chooses the frames of a clip, apart from the stream that crops it."""
        return torch.Generator().manual_seed(derive_seed("frames", self.seed, epoch, index))

    def _augmented(self, image: Tensor, augments: tuple[Augment, ...], epoch: int, index: int, view: int) -> Tensor:
        with fork_rng(view_seed(self.seed, epoch, index, view)):
            return augments[view](image)


class _ScaledBatches(TorchDataset[tuple[Any, Tensor]]):
    """As `_AugmentedBatches` with the same crops, of JPEGs that are decoded at reduced sides if all crops permit it."""

    def __init__(self, split: EncodedSplit, seed: int, views: Views) -> None:
        self.split, self.seed, self.views = split, seed, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[Any, Tensor]:
        crops = _crops(views_at(self.views, batch.epoch))
        images = [self._views(crops, batch.epoch, index) for index in batch.indices.tolist()]
        return stack_views(images), self.split.labels[batch.indices]

    def _views(self, crops: tuple[TrainingCrop, ...], epoch: int, index: int) -> list[Tensor]:
        seeds = [view_seed(self.seed, epoch, index, view) for view in range(len(crops))]

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


class _EncodedBatches(TorchDataset[tuple[EncodedBatch, Tensor]]):
    """Files as they are, with the crops and flips of `_AugmentedBatches`, for a device that decodes and crops."""

    def __init__(self, split: EncodedSplit, seed: int, views: Views) -> None:
        self.split, self.seed, self.views = split, seed, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, batch: BatchIndices) -> tuple[EncodedBatch, Tensor]:
        crops = _crops(views_at(self.views, batch.epoch))
        files = [self.split.read_encoded(index) for index in batch.indices.tolist()]
        boxes, mirrors = [], []
        for view, crop in enumerate(crops):
            for index, file in zip(batch.indices.tolist(), files, strict=True):
                with fork_rng(view_seed(self.seed, batch.epoch, index, view)):
                    boxes.append(crop.box(*file.size))
                    mirrors.append(crop.is_mirrored())
        shape = (len(crops), len(files))
        images = EncodedBatch.join(files, torch.tensor(boxes).view(*shape, 4), torch.tensor(mirrors).view(shape))
        return images, self.split.labels[batch.indices]


def view_seed(seed: int, epoch: int, index: int, view: int) -> int:
    """The seed of the crop and the augmentation of one view of an image."""
    return image_seed(seed, epoch, index, view) if view else image_seed(seed, epoch, index)


def stack_views(images: list[list[Tensor]]) -> Any:
    """Views by image -> one tensor of all images per view; the tensor itself if there is one view."""
    views = tuple(torch.stack(view) for view in zip(*images, strict=True))
    return views[0] if len(views) == 1 else views


@lru_cache
def _crops(views: tuple[InputConfig, ...]) -> tuple[TrainingCrop, ...]:
    return tuple(TrainingCrop(view) for view in views)


def training_loader(
    split: ImageSplit,
    views: InputConfig | Views,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    augment: Augment | None = None,
    decoding: Decoding = "full",
) -> DataLoader[Any]:
    """One epoch of (images [B, C, h, w], int64 labels [B]) for this rank; `batch_size` is B.

    Clips are [B, C, T, h, w]. Images are uint8. Those of other types are float32 on the same scale, 0 to 255.

    Images of an ArraySplit stay whole: DeviceTransform(batched=True) crops them. Others are cropped to the image_size
    of `views`; if there are several views, the first item of a batch is a tuple with one tensor per view. With
    `augment`, all images are what it returns. Call `loader.sampler.set_epoch(epoch)` before each epoch.

    Args:
        views: how images are cropped and augmented, once or once per view; their sizes may change between epochs.
        decoding: of an EncodedSplit's images, without `augment`. With "device", a batch is (EncodedBatch, labels).

    Raises:
        InputError: the split does not fill one batch on every rank.
    """
    sampler = EpochSampler(
        len(split), batch_size, seed, rank, world_size, shards=split.shards, open_shards=split.open_shards
    )
    if isinstance(split, ArraySplit) and augment is None:  # cropped on the device, see DeviceTransform
        return _loader(_ArrayBatches(split), sampler, seed, 0, device)
    views = (views,) if isinstance(views, InputConfig) else views
    if isinstance(split, EncodedSplit) and augment is None and decoding == "scaled":
        return _loader(_ScaledBatches(split, seed, views), sampler, seed, workers, device)
    if isinstance(split, EncodedSplit) and augment is None and decoding == "device":
        return _loader(_EncodedBatches(split, seed, views), sampler, seed, workers, device)
    return _loader(_AugmentedBatches(split, seed, views, augment), sampler, seed, workers, device)


def evaluation_loader(
    split: ImageSplit, input_config: InputConfig, *, batch_size: int, device: torch.device, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Every image once, in order, as (images [B, C, h, w], int64 labels [B]): uint8, or float32 on the same scale.

    Clips are [B, C, T, h, w]. Images of an ArraySplit stay whole: DeviceTransform(batched=True) resizes them. Others
    are resized and centrally cropped to input.image_size.
    """
    check_eval_resize(input_config)
    all_indices = [BatchIndices(0, indices) for indices in torch.arange(len(split)).split(batch_size)]
    if isinstance(split, ArraySplit):  # resized on the device, see DeviceTransform
        return _loader(_ArrayBatches(split), all_indices, 0, 0, device)
    return _loader(_EvaluationBatches(split, input_config), all_indices, 0, workers, device)


def _loader(batches: TorchDataset[Any], sampler: Any, seed: int, workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        collate_fn=identity_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_stop_signals,
        # A generator of this loader: starting workers then draws nothing from the global one.
        generator=torch.Generator().manual_seed(seed),
    )


def identity_collate(batch: Any) -> Any:
    """The batch as it is: one loader item is already one batch."""
    return batch


def ignore_stop_signals(worker: int) -> None:
    """Make a loader's worker ignore Ctrl-C, and SIGTERM unless it comes from the training process itself.

    A terminal and a scheduler send these to all processes at once, and the training process needs its workers to
    finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
