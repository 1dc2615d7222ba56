"""Which images an attack scores: members of the training set, others of the same distribution, and canaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimbench.api import DataChoice, Dataset, ImageSplit, SplitName, image_split, subset, training_indices

CODE, COPIES = "code", "copies"
"""Attributes of a dataset with canaries: 1 for codes and 0 for plain images; copies in the train split."""
CODES = "codes"
"""The part of a dataset that has each canary once, and codes that are in no training set."""
SHUFFLE = 0
"""Seed of the choice of images, if there are more than are scored."""


@dataclass(frozen=True)
class Pool:
    """The images, split by split. Columns have one value per image, in the order of the splits."""

    indices: dict[SplitName, Tensor]
    """Positions of the images in each split that some are from, int64, rising."""
    ids: np.ndarray
    """int64 [N]: positions in the splits, one after the other."""
    is_member: np.ndarray
    """bool [N]; canaries that are in the training set are members too."""
    is_code: np.ndarray
    """bool [N]"""
    copies: np.ndarray
    """int64 [N]: how often a canary is in the training set; 0 for plain images."""
    held_out: str
    """Where the non-members are from."""

    def members(self) -> np.ndarray:
        """Positions of plain members in the columns."""
        return np.flatnonzero(self.is_member & ~self.is_code)

    def others(self) -> np.ndarray:
        """Positions of plain images that are no members."""
        return np.flatnonzero(~self.is_member & ~self.is_code)

    def canaries(self, copies: int) -> np.ndarray:
        """Positions of the canaries with so many copies; 0: the unseen ones."""
        return np.flatnonzero(self.is_code & (self.copies == copies))

    def images(self, dataset: Dataset, name: SplitName) -> ImageSplit:
        """The pool's images of a split."""
        return subset(image_split(dataset, name), self.indices[name].tolist())


def find_pool(dataset: Dataset, choice: DataChoice | None, most: int) -> Pool:
    """Members, others and canaries of a dataset.

    Members are the training images that `choice` names, and all of them if it is None. Other images are the rest of
    the train split, or else the test split.

    Args:
        most: members and other images, at most so many of each.
    """
    train, test = image_split(dataset, "train"), image_split(dataset, "test")
    plain = torch.ones(len(train), dtype=torch.bool)
    if CODE in train.attributes:
        plain = train.attributes[CODE] == 0
    seen = torch.zeros(len(train), dtype=torch.bool)
    seen[training_indices(train.labels, choice) if choice else torch.arange(len(train))] = True
    members, rest = (torch.nonzero(plain & chosen).flatten() for chosen in (seen, ~seen))
    indices = {"train": _draw(members, most), "test": torch.empty(0, dtype=torch.long)}
    if len(rest):
        indices["train"] = torch.cat((indices["train"], _draw(rest, most))).sort().values
    else:
        indices["test"] = _draw(torch.arange(len(test)), most)
    is_member = torch.cat((seen[indices["train"]], torch.zeros(len(indices["test"]), dtype=torch.bool)))
    ids = torch.cat((indices["train"], len(train) + indices["test"]))
    is_code, copies = torch.zeros(len(ids), dtype=torch.bool), torch.zeros(len(ids), dtype=torch.long)
    if CODES in dataset.parts:
        codes = image_split(dataset, CODES)
        indices[CODES] = torch.arange(len(codes))
        of_codes = codes.attributes[COPIES]
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


def _draw(positions: Tensor, most: int) -> Tensor:
    """At most `most` of them, rising; which ones depends on their number alone."""
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(SHUFFLE))
    return positions[order[:most].sort().values]
