"""Seeded, stratified choices and digests of content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import ArraySplit, DataChoice, ImageSplit
from mimbench.data.files.image_reading import Source
from mimbench.data.pipeline.encoded import EncodedSplit
from mimbench.errors import InputError


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` samples, with every class in proportion, to within one sample.

    Unlike scikit-learn's splitters it takes classes of a single sample, and leaves them out of any
    choice of fewer than half the samples.
    """
    # RandomState, because its stream is frozen: the same split with every numpy release.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    depth = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        depth[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = shuffled[np.argsort(depth[shuffled], kind="stable")][:count]
    return np.sort(chosen)


def subset(split: ImageSplit, indices: Sequence[int]) -> ImageSplit:
    """The images of `split` at `indices`, in that order; in memory if `split` is."""
    chosen = list(indices)
    if isinstance(split, ArraySplit):
        images, labels = split.images[chosen], split.labels[chosen]
        return ArraySplit(
            images, labels, split.classes, _attributes(split, chosen), split.pixel_range, _object_masks(split, chosen)
        )
    return _EncodedSubset(split, chosen) if isinstance(split, EncodedSplit) else _Subset(split, chosen)


def hold_out(split: ImageSplit, fraction: float, seed: int, where: str) -> dict[str, ImageSplit]:
    """A train and a test split, drawn from one split as `held_out_indices`.

    Raises:
        InputError: there are fewer than two images.
    """
    parts = held_out_indices(split.labels.numpy(), fraction, seed, where)
    return {name: subset(split, indices.tolist()) for name, indices in parts.items()}


def held_out_indices(labels: np.ndarray, fraction: float, seed: int, where: str) -> dict[str, np.ndarray]:
    """Sorted indices of a train and a test split, drawn with every class in proportion.

    Args:
        labels: of all images, [N].
        fraction: share of the test split.
        where: the data's folder, for messages.

    Raises:
        InputError: there are fewer than two images.
    """
    size = len(labels)
    if size < 2:
        raise InputError(f"one image in {where} cannot be split into train and test: add more")
    test = stratified(labels, min(max(1, round(size * fraction)), size - 1), seed)
    return {"train": complement(size, test), "test": test}


class _Subset(ImageSplit):
    def __init__(self, split: ImageSplit, indices: list[int]) -> None:
        self.split, self.indices = split, indices
        self.labels, self.classes = split.labels[indices], split.classes
        self.attributes, self.pixel_range = _attributes(split, indices), split.pixel_range
        self.object_masks = _object_masks(split, indices)
        self.shards = None if split.shards is None else split.shards[indices]
        self.open_shards, self.has_test_clips = split.open_shards, split.has_test_clips
        self.crop_position = split.crop_position

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.split[self.indices[index]]

    def file_name(self, index: int) -> str:
        return self.split.file_name(self.indices[index])

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return self.split.draw(self.indices[index], generator)

    def test_clip(self, index: int, clip: int, clips: int) -> tuple[Tensor, int]:
        return self.split.test_clip(self.indices[index], clip, clips)


class _EncodedSubset(_Subset, EncodedSplit):
    split: EncodedSplit

    def __init__(self, split: EncodedSplit, indices: list[int]) -> None:
        super().__init__(split, indices)
        self.channels, self.policy = split.channels, split.policy

    def source(self, index: int) -> Source:
        return self.split.source(self.indices[index])

    def place(self, index: int) -> str:
        return self.split.place(self.indices[index])


def _attributes(split: ImageSplit, indices: list[int]) -> dict[str, Tensor]:
    return {name: values[indices] for name, values in split.attributes.items()}


def _object_masks(split: ImageSplit, indices: list[int]) -> Tensor | None:
    return None if split.object_masks is None else split.object_masks[indices]


def training_indices(labels: Tensor, choice: DataChoice) -> Tensor:
    """Positions of the images to pretrain on, int64: the share, sorted, then the planted images, copy by copy.

    The share is drawn, with every class in proportion, from the images that are not planted. So it does not depend on
    the number of copies, and no planted image is in it.

    Args:
        labels: int64 [N], of the whole split.

    Raises:
        InputError: more images are planted than there are, or no image is left to pretrain on.
    """
    planted = planted_indices(len(labels), choice)
    others = complement(len(labels), planted.numpy())
    count = round(choice.share * len(others))
    chosen = others
    if choice.share < 1:
        if count < 1:
            raise InputError(f"pretrain.data_share {choice.share:g} of {len(others)} images leaves none; raise it")
        chosen = others[stratified(labels.numpy()[others], count, choice.seed)]
    indices = torch.cat((torch.from_numpy(chosen), planted.repeat(choice.plant_copies)))
    if not len(indices):
        raise InputError("all images are planted, with pretrain.plant_copies 0: none is left; lower plant_count")
    return indices


def planted_indices(count: int, choice: DataChoice) -> Tensor:
    """Sorted positions of the planted images among all `count` images of the split, int64 [plant_count].

    Raises:
        InputError: there are fewer images.
    """
    if choice.plant_count > count:
        raise InputError(f"pretrain.plant_count {choice.plant_count} is more than the {count} images; lower it")
    # RandomState, because its stream is frozen: the same images with every numpy release.
    order = np.random.RandomState(choice.plant_seed).permutation(count)
    return torch.from_numpy(np.sort(order[: choice.plant_count])).long()


def training_images(split: ImageSplit, choice: DataChoice) -> ImageSplit:
    """The images to pretrain on, as `training_indices`; the split itself if that is all of it, each once.

    Raises:
        InputError: as `training_indices`.
    """
    if choice.share == 1 and not choice.plant_count:
        return split
    return subset(split, training_indices(split.labels, choice).tolist())


def count_training_images(split: ImageSplit, choice: DataChoice) -> int:
    """Number of the images to pretrain on. It copies no images.

    Raises:
        InputError: as `training_indices`.
    """
    if choice.share == 1 and not choice.plant_count:
        return len(split)
    return len(training_indices(split.labels, choice))


def complement(size: int, chosen: np.ndarray) -> np.ndarray:
    """Sorted indices below `size` that are not in `chosen`."""
    return np.setdiff1d(np.arange(size), chosen)


def array_fingerprint(splits: Mapping[str, ArraySplit]) -> str:
    """SHA-256 over the pixels, labels and class names of in-memory splits."""
    digest = hashlib.sha256()
    for name, split in sorted(splits.items()):
        digest.update(repr((name, tuple(split.images.shape), split.classes)).encode())
        if split.images.dtype != torch.uint8:  # the digests of bytes stay as they were
            digest.update(repr((str(split.images.dtype), split.pixel_range)).encode())
        for attribute, values in sorted(split.attributes.items()):
            digest.update(attribute.encode() + values.numpy().astype("<i8").tobytes())
        digest.update(split.images.contiguous().numpy().tobytes())
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
