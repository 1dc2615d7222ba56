"""A split as input of mmsegmentation's models. It is decoded once if it fits in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mimbench.api import (
    BatchIndices,
    EpochSampler,
    InputError,
    SemanticSplit,
    compose_transforms,
    fork_rng,
    get_rank,
    get_world_size,
    identity_collate,
    ignore_stop_signals,
    image_seed,
    own_share,
    read_sized,
)
from mimbench_tasks.segmentation.config import SegmentationConfig

CACHE_LIMIT = 1 << 30
"""Bytes of decoded pixels and labels of one split that are kept in memory."""

LONGEST_ASPECT = 4
"""mmsegmentation's ADE20K pipelines resize to (2048, 512)."""

Sample = dict[str, Any]
"""{"inputs": uint8 [C, H, W] in grey or RGB, "data_samples": SegDataSample with int64 [1, H, W]}."""


class LabelledImages(TorchDataset):
    """images[pick] -> a batch {"inputs": [uint8 [C, H, W], ...], "data_samples": [SegDataSample, ...]}.

    In training, image and labels are augmented from (seed, epoch, index) alone. At evaluation the image is resized
    and the labels stay as they are: predictions are scored in the original pixels.
    """

    def __init__(self, split: SemanticSplit, config: SegmentationConfig, *, channels: int, seed: int | None) -> None:
        """channels: what the encoder takes, 1 or 3. seed: of training; None: evaluation."""
        self.split, self.seed, self.channels = split, seed, channels
        self._resize = compose_transforms(TRANSFORMS, "mmseg", [] if config.image_size is None else [_resize(config)])
        self._augment = compose_transforms(TRANSFORMS, "mmseg", training_transforms(config, channels))
        self._pack = PackSegInputs()
        shapes = [split.shape(index) for index in range(len(split))]
        self.in_memory = sum(height * width for height, width in shapes) * (channels + 1) <= CACHE_LIMIT
        self.one_size = len(set(shapes)) == 1
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, pick: BatchIndices) -> dict[str, list]:
        return pseudo_collate([self.sample(index, pick.epoch) for index in pick.indices.tolist()])

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """One image with its labels, as `epoch` sees it."""
        pixels, labels = self._read(index)
        shape = pixels.shape[:2]
        # Copies: some transforms write in place.
        sample: dict[str, Any] = {"img": pixels.copy(), "img_shape": shape, "ori_shape": shape, "seg_fields": []}
        truth = {"gt_seg_map": labels.copy(), "seg_fields": ["gt_seg_map"]}
        if self.seed is None:
            return self._pack({**self._resize(sample), **truth})
        with fork_rng(image_seed(self.seed, epoch, index)):
            return self._pack(self._augment({**sample, **truth}))

    def training_loader(self, batch_size: int, *, workers: int, pin_memory: bool) -> DataLoader:
        """This process's whole batches of an epoch, shuffled by (seed, epoch); `batch_size` is of one process."""
        sampler = EpochSampler(len(self), batch_size, self.seed or 0, get_rank(), get_world_size())
        return self._loader(sampler, workers, pin_memory)

    def evaluation_loader(self, batch_size: int, *, workers: int, pin_memory: bool) -> DataLoader:
        """Every image once, in order; one per batch if their sizes differ. Processes share the batches."""
        picks = [
            BatchIndices(0, indices) for indices in torch.arange(len(self)).split(batch_size if self.one_size else 1)
        ]
        return self._loader(own_share(picks), workers, pin_memory)

    def _loader(self, sampler: Iterable[BatchIndices], workers: int, pin_memory: bool) -> DataLoader:
        workers = 0 if self.in_memory else workers
        return DataLoader(
            self,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=identity_collate,
            worker_init_fn=ignore_stop_signals,
        )

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [H, W, C] and uint8 [H, W]."""
        if index in self._cache:
            return self._cache[index]
        path = self.split.image(index)
        labels = self.split.labels(index).numpy()
        height, width = labels.shape
        try:
            pixels = read_sized(path, self.channels, (width, height))
        except InputError:
            raise
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise InputError(f"cannot read the image {path}: {error}") from error
        if self.in_memory:
            self._cache[index] = pixels, labels
        return pixels, labels


def training_transforms(config: SegmentationConfig, channels: int) -> list[dict[str, Any]]:
    """mmsegmentation's transforms of training images, in the order of its ADE20K pipeline."""
    steps: list[dict[str, Any]] = []
    if config.scale_jitter != (1.0, 1.0):
        scale = _resize(config)["scale"]
        jitter = {"scale": scale, "ratio_range": config.scale_jitter, "keep_ratio": True}
        steps.append({"type": "RandomResize", "resize_type": "mmseg.Resize", **jitter})
    elif config.image_size is not None:
        steps.append(_resize(config))
    if config.crop_size is not None:
        size = (config.crop_size, config.crop_size)
        steps.append({"type": "RandomCrop", "crop_size": size, "cat_max_ratio": config.most_of_crop})
    if config.flip:
        steps.append({"type": "RandomFlip", "prob": config.flip})
    if config.photometric and channels == 3:
        steps.append({"type": "PhotoMetricDistortion"})
    return steps


def _resize(config: SegmentationConfig) -> dict[str, Any]:
    size = config.image_size or 0
    return {"type": "Resize", "scale": (LONGEST_ASPECT * size, size), "keep_ratio": True}
