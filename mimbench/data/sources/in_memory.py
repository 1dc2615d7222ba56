"""Datasets whose splits are tensors in memory."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np

from mimbench.contract import ArraySplit, Dataset, SplitName
from mimbench.data.pipeline.subsets import array_fingerprint, stratified


class InMemoryDataset(Dataset):
    """A dataset whose splits are made when one is first asked for. Its fingerprint is of their content."""

    @abstractmethod
    def make_splits(self) -> dict[str, ArraySplit]:
        """Every part of the dataset, by name."""

    def split(self, name: SplitName) -> ArraySplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return array_fingerprint(self._splits)

    @cached_property
    def _splits(self) -> dict[str, ArraySplit]:
        return self.make_splits()


def at_most(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Indices of a stratified subset of so many images, or of all: the same ones every time."""
    return stratified(labels, limit, seed=0) if limit is not None and limit < len(labels) else np.arange(len(labels))


def limited(size: int, limit: int | None) -> int:
    """How many of `size` images `at_most` leaves."""
    return size if limit is None else min(size, limit)
