"""Loaders: batches of images on the scale of bytes and labels, the same for every number of workers and ranks.

One loader item is one batch. Images in memory are indexed as a batch in the main process; others, and those that are
augmented one by one, are read, cropped and stacked by workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mimbench.contract import ArraySplit, ImageSplit, InputConfig
from mimbench.data.pipeline.augment import Augment
from mimbench.data.pipeline.batches import (
    ArrayBatches,
    AugmentedBatches,
    BatchIndices,
    EncodedBatches,
    EvaluationBatches,
    ScaledBatches,
)
from mimbench.data.pipeline.encoded import Decoding, EncodedSplit
from mimbench.data.pipeline.transforms import check_eval_resize
from mimbench.data.pipeline.view_schedule import Views
from mimbench.errors import InputError
from mimbench.seeds import image_seed


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
        repeats: int = 1,
    ) -> None:
        """
        Args:
            shards: int64 [size], the file that holds each sample, or None; see `ImageSplit`.
            open_shards: files whose samples are shuffled together.
            repeats: how often an epoch draws each of its samples (repeated augmentation, arXiv:1901.09335). It is as
                long as without, so it has 1 / `repeats` of all samples. The copies of a sample are in one step of all
                ranks, or in two that follow each other, and as far apart within a step as possible.

        Raises:
            InputError: `size` samples do not fill one batch on every rank.
        """
        self.shards, self.open_shards, self.repeats = shards, open_shards, repeats
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
        start = self.rank * self.batch_size
        for step in range(first, len(self)):
            draws = self._draws(step)[start : start + self.batch_size]
            copies = draws % self.repeats if self.repeats > 1 else None
            yield BatchIndices(epoch, order[draws // self.repeats], copies)

    def _draws(self, step: int) -> Tensor:
        """The draws of an epoch that are in one step of all ranks: first copies, second copies, and so on."""
        whole = self.batch_size * self.world_size
        draws = torch.arange(step * whole, (step + 1) * whole)
        return draws[(draws % self.repeats).argsort(stable=True)]

    def _order(self, generator: torch.Generator) -> Tensor:
        """All samples of an epoch: shuffled together, or the files in a drawn order and the samples of a few of them
        shuffled together."""
        order = torch.randperm(self.size, generator=generator)
        if self.shards is None:
            return order
        numbers, shard_of = self.shards.unique(return_inverse=True)
        turn = torch.randperm(len(numbers), generator=generator) // self.open_shards
        return order[turn[shard_of[order]].argsort(stable=True)]


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
    repeats: int = 1,
) -> DataLoader[Any]:
    """One epoch of (images [B, C, h, w], int64 labels [B]) for this rank; `batch_size` is B.

    Clips are [B, C, T, h, w]. Images are uint8. Those of other types are float32 on the same scale, 0 to 255.

    Images of an ArraySplit stay whole: DeviceTransform(batched=True) crops them. Others are cropped to the image_size
    of `views`; if there are several views, the first item of a batch is a tuple with one tensor per view. With
    `augment`, all images are what it returns. Call `loader.sampler.set_epoch(epoch)` before each epoch.

    Args:
        views: how images are cropped and augmented, once or once per view; their sizes may change between epochs.
        decoding: of an EncodedSplit's images, without `augment`. With "device", a batch is (EncodedBatch, labels).
        repeats: how often an epoch draws each of its images, see `EpochSampler`.

    Raises:
        InputError: the split does not fill one batch on every rank.
    """
    sampler = EpochSampler(
        len(split),
        batch_size,
        seed,
        rank,
        world_size,
        shards=split.shards,
        open_shards=split.open_shards,
        repeats=repeats,
    )
    if isinstance(split, ArraySplit) and augment is None:  # cropped on the device, see DeviceTransform
        return _loader(ArrayBatches(split), sampler, seed, 0, device)
    views = (views,) if isinstance(views, InputConfig) else views
    if isinstance(split, EncodedSplit) and augment is None and decoding == "scaled":
        return _loader(ScaledBatches(split, seed, views), sampler, seed, workers, device)
    if isinstance(split, EncodedSplit) and augment is None and decoding == "device":
        return _loader(EncodedBatches(split, seed, views), sampler, seed, workers, device)
    return _loader(AugmentedBatches(split, seed, views, augment), sampler, seed, workers, device)


def evaluation_loader(
    split: ImageSplit,
    input_config: InputConfig,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    first: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Every image once, in order, as (images [B, C, h, w], int64 labels [B]): uint8, or float32 on the same scale.

    Clips are [B, C, T, h, w]. Images of an ArraySplit stay whole: DeviceTransform(batched=True) resizes them. Others
    are resized and centrally cropped to input.image_size.

    Args:
        batch_size: of a batch on one rank. The same images form a batch, however many ranks there are.
        rank: the batches of this rank are loaded: every `world_size`-th, from batch `first` + `rank` on.
        first: so many batches are left out.
    """
    check_eval_resize(input_config)
    batches = [BatchIndices(0, indices) for indices in torch.arange(len(split)).split(batch_size)]
    share = batches[first + rank :: world_size]
    if isinstance(split, ArraySplit):  # resized on the device, see DeviceTransform
        return _loader(ArrayBatches(split), share, 0, 0, device)
    return _loader(EvaluationBatches(split, input_config), share, 0, workers, device)


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
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
