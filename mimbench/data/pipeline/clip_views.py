"""Test views of clips: several clips and crops of each video, and clips whose frames are shuffled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import ArraySplit, ImageSplit
from mimbench.errors import InputError

_SHUFFLE = 18
"""Seed of the shuffled orders, with the index of the clip. Another one would give other scores."""


def clip_views(split: ImageSplit, clips: int, crops: int) -> list[ImageSplit]:
    """Splits with one view of each video: all crops of the first clip, then of the second one, and so on.

    Clips are those of `ImageSplit.test_clip`. Crops lie at equal distances along the longer side, from one end to the
    other; a single one is central. One view of one clip is `split` itself.

    Raises:
        InputError: the split has whole clips only, or clips in memory, which are shown whole.
    """
    if clips > 1 and not split.has_test_clips:
        raise InputError(f"task.clips {clips}: this dataset's clips are not cut out of longer ones; set task.clips=1")
    if crops > 1 and split.is_in_memory:
        raise InputError(f"task.crops {crops}: clips in memory are shown whole; set task.crops=1")
    if clips == crops == 1:
        return [split]
    return [
        _View(split, clip, clips, crop / (crops - 1) if crops > 1 else 0.5)
        for clip in range(clips)
        for crop in range(crops)
    ]


def shuffle_frames(split: ImageSplit) -> ImageSplit:
    """The same clips with their frames in random order: what is left of a score does not rest on motion.

    The order is drawn for each clip from its index, uniformly over all orders, and is the same at every call.
    """
    return _ShuffledArray(split) if isinstance(split, ArraySplit) else _Shuffled(split)


def _order(index: int, frames: int) -> Tensor:
    """int64 [frames]. RandomState, because its stream is frozen: the same order with every numpy release."""
    return torch.from_numpy(np.random.RandomState([_SHUFFLE, index]).permutation(frames))


class _Wrapped(ImageSplit):
    """A split that shows the videos of another one in another way. Labels are read when they are asked for."""

    def __init__(self, split: ImageSplit) -> None:
        self.split = split
        self.classes, self.attributes, self.pixel_range = split.classes, split.attributes, split.pixel_range
        self.has_test_clips, self.crop_position = split.has_test_clips, split.crop_position

    @property
    def labels(self) -> Tensor:  # type: ignore[override]
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def file_name(self, index: int) -> str:
        return self.split.file_name(index)


class _View(_Wrapped):
    """One clip and one crop of each video."""

    def __init__(self, split: ImageSplit, clip: int, clips: int, position: float) -> None:
        super().__init__(split)
        self.clip, self.clips, self.crop_position, self.has_test_clips = clip, clips, position, False

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.split.test_clip(index, self.clip, self.clips)


class _Shuffled(_Wrapped):
    """Clips with their frames in random order."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.test_clip(index, 0, 1)

    def test_clip(self, index: int, clip: int, clips: int) -> tuple[Tensor, int]:
        frames, label = self.split.test_clip(index, clip, clips)
        return frames[:, _order(index, frames.shape[1])], label


class _ShuffledArray(_Wrapped, ArraySplit):
    """The same in memory."""

    def __init__(self, split: ArraySplit) -> None:
        super().__init__(split)
        orders = torch.stack([_order(index, split.images.shape[2]) for index in range(len(split))])
        self.images = split.images.gather(2, orders[:, None, :, None, None].expand(split.images.shape))
