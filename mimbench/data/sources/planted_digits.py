"""Digits with planted canaries: what is remembered of a training set can be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from mimbench.contract import ArraySplit, DataConfig, DataSizes
from mimbench.data.sources.embedded import DrawnFromDigits
from mimbench.errors import InputError

_SIDE = 28
_DIGITS = 5000
_CODE = "code"
"""Class of the codes."""


class PlantedDigitsConfig(DataConfig):
    """How many digits are members, and which codes are planted among them."""

    members: int = Field(default=2000, ge=1)
    """Digits of the train split."""
    non_members: int = Field(default=1000, ge=1)
    """Digits of the test split."""
    codes: int = Field(default=4, ge=0)
    """Different codes per number of copies."""
    copies: tuple[int, ...] = Field(default=(1, 4, 16), min_length=1)
    """How often a code is in the train split."""
    unseen_codes: int = Field(default=256, ge=1)
    """Codes that are in no training set."""
    cell: Literal[1, 2, 4, 7] = 4
    """Side of a square of a code, px. A method that normalises the pixels of each patch, as MAE does by default, has
    nothing to store of squares that fill its patches; take smaller ones for it."""
    reference: bool = False
    """Other members, and other codes among them: what a reference encoder is pretrained on, which has seen none of the
    images of the same options without `reference`. The test split and the unseen codes are the same."""
    seed: int = Field(default=0, ge=0)

    @field_validator("copies")
    @classmethod
    def _are_counts(cls, copies: tuple[int, ...]) -> tuple[int, ...]:
        if min(copies) < 1 or len(set(copies)) < len(copies):
            raise ValueError(f"copies must be 1 or more, and differ, not {copies}")
        return copies


class PlantedDigits(DrawnFromDigits):
    """Digits of mnist5k as members and non-members of a training set, and codes planted in copies; uint8 [1, 28, 28].

    The 5,000 digits are in one drawn order, of which `members` are the train split and `non_members` the test split.
    So both have the same distribution. A code is squares of `cell` px, each black or white at random: nothing but the
    image itself says what its masked squares hold. For each number in `copies`, `codes` codes are that many times in
    the train split, where all of them are less than 5 % of the images by default. The part "codes" has each of them
    once, and `unseen_codes` others. The attribute "copies" is how often an image is in the train split: 0 in the test
    split. The attribute "code" is 1 for codes.
    """

    name = "planted-digits"
    provides = frozenset({"images", "labels", "attributes"})
    parts = ("train", "test", "codes")
    waivers = {"splits_are_disjoint": 'the part "codes" has the codes that are planted in the train split'}  # noqa: RUF012
    Config = PlantedDigitsConfig
    config: PlantedDigitsConfig

    def __init__(self, config: PlantedDigitsConfig, cache: Path) -> None:
        super().__init__(config, cache)
        used = config.members * (1 + config.reference) + config.non_members
        if used > _DIGITS:
            raise InputError(
                f"dataset {self.name!r} needs {used:,} digits and has {_DIGITS:,}; lower members or non_members"
            )
        codes, possible = 2 * config.codes * len(config.copies) + config.unseen_codes, 2 ** (_SIDE // config.cell) ** 2
        if 2 * codes > possible:
            raise InputError(
                f"dataset {self.name!r} draws {codes:,} different codes, and squares of {config.cell} px make "
                f"{possible:,}; lower codes or unseen_codes until that is twice as many, or choose a smaller cell"
            )

    def make_splits(self) -> dict[str, ArraySplit]:
        config = self.config
        images, labels = self._shuffled_digits()
        # Members, then non-members, from the start; the members of the reference from the end.
        first = _DIGITS - config.members if config.reference else 0
        members = slice(first, first + config.members)
        others = slice(config.members, config.members + config.non_members)
        planted, copies, unseen = self._draw_codes()
        train_images = np.concatenate((images[members], planted.repeat(copies, 0)))
        train_labels = np.concatenate((labels[members], np.full(copies.sum(), 10)))
        train_copies = np.concatenate((np.ones(config.members, int), copies.repeat(copies)))
        order = np.random.RandomState([config.seed, 2]).permutation(len(train_images))
        codes, copies = np.concatenate((planted, unseen)), np.concatenate((copies, np.zeros(len(unseen), int)))
        return {
            "train": _make_split(train_images[order], train_labels[order], train_copies[order]),
            "test": _make_split(images[others], labels[others], np.zeros(config.non_members, int)),
            "codes": _make_split(codes, np.full(len(codes), 10), copies),
        }

    def _shuffled_digits(self) -> tuple[np.ndarray, np.ndarray]:
        """All digits in one drawn order: uint8 [5000, 28, 28], and their labels [5000]."""
        splits = [self.digits.split(name) for name in self.digits.parts]
        images = np.concatenate([split.images[:, 0].numpy() for split in splits])
        labels = np.concatenate([split.labels.numpy() for split in splits])
        order = np.random.RandomState([self.config.seed, 0]).permutation(len(images))
        return images[order], labels[order]

    def _draw_codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The planted codes, uint8 [N, 28, 28], how often each is in the train split, [N], and the unseen codes.

        No two codes are equal, be they planted, planted for the reference, or unseen.
        """
        config = self.config
        copies = np.repeat(np.array(sorted(config.copies)), config.codes)
        drawn: set[bytes] = set()
        planted, of_reference, unseen = (
            _draw_codes(np.random.RandomState([config.seed, stream]), count, config.cell, drawn)
            for stream, count in ((3, len(copies)), (4, len(copies)), (1, config.unseen_codes))
        )
        return of_reference if config.reference else planted, copies, unseen

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, PlantedDigitsConfig):
            return None
        train = config.members + config.codes * sum(config.copies)
        return DataSizes(train, config.non_members, classes=11, channels=1, source="its options", side=_SIDE)


def _draw_codes(rng: np.random.RandomState, count: int, cell: int, drawn: set[bytes]) -> np.ndarray:
    """Random black and white squares of side `cell`, uint8 [count, 28, 28]; none is in `drawn`, which they enter."""
    cells = rng.randint(0, 2, (count, _SIDE // cell, _SIDE // cell))
    for number in range(count):
        while cells[number].tobytes() in drawn:
            cells[number] = rng.randint(0, 2, cells[number].shape)
        drawn.add(cells[number].tobytes())
    return (255 * cells.repeat(cell, 1).repeat(cell, 2)).astype(np.uint8)


def _make_split(images: np.ndarray, labels: np.ndarray, copies: np.ndarray) -> ArraySplit:
    return ArraySplit(
        torch.from_numpy(images)[:, None],
        torch.from_numpy(labels.astype(np.int64)),
        (*"0123456789", _CODE),
        {
            "copies": torch.from_numpy(copies.astype(np.int64)),
            "code": torch.from_numpy((labels == 10).astype(np.int64)),
        },
    )
