"""Which images an attack scores: members of the training set, non-members of the same distribution, and codes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimbench.api import (
    DataChoice,
    Dataset,
    ImageSplit,
    SplitName,
    image_split,
    sample_positions,
    subset,
    training_indices,
)

CODE, CODES = "code", "codes"
"""Attribute of a dataset with canaries: 1 for codes, random images that are nowhere else, and 0 for plain images. The
part of it that has each code once. A canary is a code that is in the training set too."""
COPIES = "copies"
"""Column of the scores: how often the pretraining saw a code in each epoch; 0 for plain images."""


@dataclass(frozen=True)
class Pool:
    """The images, split by split. Columns have one value per image, in the order of the splits."""

    indices: dict[SplitName, Tensor]
    """Positions of the images in each split that some are from, int64, rising."""
    ids: np.ndarray
    """int64 [N]: positions in the splits, one after the other."""
    is_member: np.ndarray
    """bool [N]; canaries are members too."""
    is_code: np.ndarray
    """bool [N]"""
    copies: np.ndarray
    """int64 [N]: how often a code is in the training set; 0 for plain images."""
    held_out: str
    """Where the non-members are from."""

    def members(self) -> np.ndarray:
        """Positions of plain members in the columns."""
        return np.flatnonzero(self.is_member & ~self.is_code)

    def non_members(self) -> np.ndarray:
        """Positions of plain images that are no members."""
        return np.flatnonzero(~self.is_member & ~self.is_code)

    def codes(self, copies: int) -> np.ndarray:
        """Positions of the canaries with so many copies; 0: of the codes that are in no training set."""
        return np.flatnonzero(self.is_code & (self.copies == copies))

    def images(self, dataset: Dataset, name: SplitName) -> ImageSplit:
        """The pool's images of a split."""
        return subset(image_split(dataset, name), self.indices[name].tolist())


def find_pool(dataset: Dataset, choice: DataChoice | None, most: int) -> Pool:
    """Members, non-members and codes of a dataset.

    Members are the training images that `choice` names, and all of them if it is None. Non-members are the rest of the
    train split, or else the test split. A code is a canary if it is among the training images that `choice` names.

    Args:
        most: members and non-members, at most so many of each.
    """
    train, test = image_split(dataset, "train"), image_split(dataset, "test")
    plain = plain_images(train)
    times = torch.ones(len(train), dtype=torch.long)
    if choice:
        times = training_indices(train.labels, choice).bincount(minlength=len(train))
    seen = times > 0
    members, rest = (torch.nonzero(plain & chosen).flatten() for chosen in (seen, ~seen))
    indices = {"train": _draw(members, most), "test": torch.empty(0, dtype=torch.long)}
    if len(rest):
        indices["train"] = torch.cat((indices["train"], _draw(rest, most))).sort().values
    else:
        indices["test"] = sample_positions(len(test), most)
    is_member = torch.cat((seen[indices["train"]], torch.zeros(len(indices["test"]), dtype=torch.bool)))
    ids = torch.cat((indices["train"], len(train) + indices["test"]))
    is_code, copies = torch.zeros(len(ids), dtype=torch.bool), torch.zeros(len(ids), dtype=torch.long)
    if CODES in dataset.parts:
        codes = image_split(dataset, CODES)
        indices[CODES] = torch.arange(len(codes))
        of_codes = _count_copies(codes, train, torch.where(plain, 0, times))
        ids = torch.cat((ids, len(train) + len(test) + indices[CODES]))
        is_member, copies = torch.cat((is_member, of_codes > 0)), torch.cat((copies, of_codes))
        is_code = torch.cat((is_code, torch.ones(len(codes), dtype=torch.bool)))
    return Pool(
        {name: positions for name, positions in indices.items() if len(positions)},
        ids.numpy(),
        is_member.numpy(),
        is_code.numpy(),
        copies.numpy(),
        "rest of the train split" if len(rest) else "test split",
    )


def plain_images(split: ImageSplit) -> Tensor:
    """Which images are no codes: bool [N]."""
    return split.attributes[CODE] == 0 if CODE in split.attributes else torch.ones(len(split), dtype=torch.bool)


def _count_copies(codes: ImageSplit, train: ImageSplit, times: Tensor) -> Tensor:
    """How often each code is among the training images, int64 [N].

    Args:
        times: how often the pretraining saw each image of `train` in an epoch, int64 [M]; those with 0 are not opened.
    """
    counts: Counter[bytes] = Counter()
    for index in torch.nonzero(times).flatten().tolist():
        counts[_pixels(train, index)] += int(times[index])
    return torch.tensor([counts[_pixels(codes, index)] for index in range(len(codes))], dtype=torch.long)


def _pixels(split: ImageSplit, index: int) -> bytes:
    return split[index][0].numpy().tobytes()


def _draw(positions: Tensor, most: int) -> Tensor:
    """At most `most` of them, rising; which ones depends on their number alone."""
    return positions[sample_positions(len(positions), most)]
