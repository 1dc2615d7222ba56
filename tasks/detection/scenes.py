"""A COCO-format split as input of mmdet's detectors. It is decoded once if it fits in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from typing import Any

import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import TRANSFORMS
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from mimbench.api import (
    BoxCount,
    InputError,
    SceneSplit,
    compose_transforms,
    fork_rng,
    get_rank,
    get_world_size,
    ignore_stop_signals,
    own_share,
    scene_seed,
)

CACHE_LIMIT = 1 << 30
"""Bytes of one split, decoded (about: masks may weigh one byte per pixel each), up to which it is kept in memory."""

Draw = tuple[int, int]
"""Index of a scene, and the seed of its augmentation."""


class Scenes(TorchDataset):
    """scenes[index, seed] -> {"inputs": uint8 [C, H, W] in grey or RGB, "data_samples": DetDataSample}.

    `classes` and `category_ids` are in the order of the annotation file, which is the order of mmdet's labels.
    """

    def __init__(
        self,
        split: SceneSplit,
        pipeline: Sequence[dict[str, Any]],
        *,
        training: bool,
        keep_empty: bool = False,
        least_side: int = 0,
    ) -> None:
        """pipeline: mmdet transforms, each as its config. The others as in DetectionConfig, for training alone.

        Raises:
            InputError: the annotations cannot be read, name other classes, or no scene has an object.
        """
        self.annotations, self.images = read_annotations(split), split.images
        source = _Source(
            self.annotations,
            ann_file=str(split.annotations),
            data_prefix={"img": str(split.images)},
            metainfo={"classes": split.classes},
            filter_cfg=scene_filter(keep_empty, least_side),
            test_mode=not training,
            serialize_data=False,
        )
        self.category_ids: list[int] = source.cat_ids
        self.classes = tuple(category["name"] for category in self.annotations.loadCats(source.cat_ids))
        self.infos = [source.get_data_info(index) for index in range(len(source))]
        if not any(info["instances"] for info in self.infos):
            raise InputError(_why_empty(self.annotations, split))
        names = [step["type"] for step in pipeline]
        drawn = next((index for index, name in enumerate(names) if name.startswith("Random")), len(pipeline))
        self._once, self._each_time = (
            compose_transforms(TRANSFORMS, "mmdet", steps) for steps in (pipeline[:drawn], pipeline[drawn:])
        )
        self._random = drawn < len(pipeline)
        layers = [info["height"] * info["width"] * (4 + len(info["instances"])) for info in self.infos]
        self.in_memory = sum(layers) <= CACHE_LIMIT
        self._cache = [self._once(info) for info in self.infos] if self.in_memory else None

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        index, seed = draw
        prepared = self._cache[index] if self._cache is not None else self._once(deepcopy(self.infos[index]))
        if not self._random:
            return prepared
        # mmdet's transforms draw from the shared generators.
        with fork_rng(seed, spread_numpy=False):
            return self._each_time(deepcopy(prepared))

    def loader(
        self, batch_size: int, *, seed: int | None, workers: int, pin_memory: bool, accumulate: int = 1
    ) -> DataLoader:
        """Batches of this process's share, shuffled and augmented from `seed`; None: of all scenes, in order.

        The last batch of an epoch may be smaller. If one optimizer step takes several, they are all full. Without a
        seed, a process gets every n-th batch of n processes.
        """
        batches: dict[str, Any]
        if seed is None:
            indices = torch.arange(len(self)).split(batch_size)
            batches = {"batch_sampler": own_share([[(index, 0) for index in batch.tolist()] for batch in indices])}
        else:
            multiple = batch_size * accumulate if accumulate > 1 else 1
            batches = {"batch_size": batch_size, "sampler": Draws(len(self), seed, multiple)}
        return DataLoader(
            self,
            **batches,
            collate_fn=pseudo_collate,
            num_workers=0 if self.in_memory else workers,
            persistent_workers=workers > 0 and not self.in_memory,
            pin_memory=pin_memory,
            worker_init_fn=ignore_stop_signals,
        )


class Draws(Sampler[Draw]):
    """Draws of an epoch, which depend on (seed, epoch) only, in equal shares per process."""

    def __init__(self, size: int, seed: int, multiple: int = 1) -> None:
        """multiple: each process's share is filled to a multiple of this number."""
        self.multiple = multiple
        self.size, self.seed, self.epoch, self._skipped = size, seed, 0, 0
        self.rank, self.world = get_rank(), get_world_size()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def skip_next(self, draws: int) -> None:
        """Skip the first `draws` in the next iteration, because an interrupted run has used them."""
        self._skipped = draws

    def __len__(self) -> int:
        share = -(-self.size // self.world)
        return -(-share // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(scene_seed(self.seed, self.epoch))
        indices = torch.randperm(self.size, generator=generator)
        seeds = torch.randint(2**31, (self.size,), generator=generator)
        # Repeats from the start fill the last share, so that every process steps equally often.
        mine = torch.arange(self.rank, len(self) * self.world, self.world)[self._skipped :] % self.size
        self._skipped = 0
        return zip(indices[mine].tolist(), seeds[mine].tolist(), strict=True)


def different_labels(training: SceneSplit, testing: SceneSplit) -> str:
    """The message if the categories of two splits differ in name or order. mmdet numbers labels in that order."""
    return (
        f"{training.annotations} and {testing.annotations} list their categories differently, and labels follow that "
        "order; list the same names in the same order"
    )


def scene_filter(keep_empty: bool, least_side: int) -> dict[str, Any]:
    """mmdet's options for the training scenes that are skipped."""
    return {"filter_empty_gt": not keep_empty, "min_size": least_side}


class _Source(CocoDataset):
    """mmdet's dataset on annotations that are already in memory."""

    def __init__(self, annotations: COCO, **options: Any) -> None:
        self.COCOAPI = lambda path: annotations
        super().__init__(**options)


def read_annotations(split: SceneSplit) -> COCO:
    """The annotation file of a split.

    Raises:
        InputError: it cannot be read, or lacks one of the split's classes.
    """
    try:
        with redirect_stdout(StringIO()):
            annotations = COCO(str(split.annotations))
        for record in annotations.dataset.get("annotations", []):
            record.setdefault("iscrowd", 0)  # absent from many files; COCO's metrics need it
        names = {category["name"] for category in annotations.dataset["categories"]}
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise InputError(f"cannot read {split.annotations} as COCO annotations: {error!r}") from error
    missing = sorted(set(split.classes) - names)
    if missing:
        raise InputError(f"{split.annotations} has no category {missing[0]!r}; it has: {', '.join(sorted(names))}")
    return annotations


def _why_empty(annotations: COCO, split: SceneSplit) -> str:
    count = BoxCount()
    for record in annotations.dataset.get("annotations", []):
        image = annotations.imgs[record["image_id"]]
        size = image["width"], image["height"]
        count.add(record["bbox"], record["area"], size, is_crowd=bool(record["iscrowd"]))
    return count.problem(str(split.annotations)) or f"{split.annotations}: no object in any scene"
