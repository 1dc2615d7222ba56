"""A dataset whose classes every encoder can distinguish, and that logs when its test labels are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mimbench.contract import ArraySplit, DataConfig, Dataset, FeatureSource, ImageSplit, SplitName

Kind = Literal["plain", "faint", "shuffled", "test-shuffled"]
SIZE = 8
CLASSES = ("red", "green", "blue", "yellow", "cyan", "magenta")
RGB = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))
_EACH = {"train": 40, "test": 30}
"""Images per class."""


class LabelLog:
    """Records whether a task reads test labels before its last request for features or training."""

    def __init__(self) -> None:
        self.read_early: str | None = None
        """The request ("features" or "training") that followed a read of test labels, or None."""
        self._read = self._listening = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    def read(self) -> None:
        self._read |= self._listening

    def watched(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        """Wrap a call of the harness as a request. Labels that it reads itself, to load images, do not count."""

        def request(*arguments: Any, **options: Any) -> Any:
            if self._read and self.read_early is None:
                self.read_early = what
            self._listening = False
            try:
                return call(*arguments, **options)
            finally:
                self._listening = True

        return request


class WatchedFeatures:
    """A FeatureSource whose requests are recorded in a LabelLog."""

    def __init__(self, source: FeatureSource, log: LabelLog) -> None:
        self._one, self._each = log.watched(source, "features"), log.watched(source.each_layer, "features")

    def __call__(self, split: ImageSplit, which: str, *, layer: int, pooling: str) -> Tensor:
        return self._one(split, which, layer=layer, pooling=pooling)

    def each_layer(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[Tensor]:
        return self._each(split, which, layers=layers, pooling=pooling)


class _WatchedSplit(ArraySplit):
    def __init__(self, images: Tensor, labels: Tensor, object_masks: Tensor, log: LabelLog) -> None:
        self._log = log
        super().__init__(images, labels, CLASSES, object_masks=object_masks)

    @property
    def labels(self) -> Tensor:
        self._log.read()
        return self._labels

    @labels.setter
    def labels(self, labels: Tensor) -> None:
        self._labels = labels


class Colours(Dataset):
    """RGB images of 8 x 8 px with one colour per class, which survives crops and flips, or clips of such frames.

    `object_masks` are rectangles at random places. The colour fills the image, so that no pixel of theirs is special.

    Kinds:
        "plain": a little noise.
        "faint": so much noise that the best classifier makes errors, and any change of its input changes its score.
        "shuffled": plain, with the labels of both splits in random order.
        "test-shuffled": plain, with the labels of the test split in random order.
    """

    name, channels, side = "colours", 3, SIZE
    provides = frozenset({"images", "labels", "object-masks"})

    def __init__(self, kind: Kind, folder: Path, frames: int = 1) -> None:
        """`folder` holds files that tasks derive from the images. frames: of each clip; 1: images."""
        super().__init__(DataConfig(), folder)
        self.kind, self.frames = kind, frames
        self.log = LabelLog()
        train, test = self._made("train"), self._made("test")
        self._splits = {
            "train": ArraySplit(*train, CLASSES, object_masks=_rectangles(len(train[0]))),
            "test": _WatchedSplit(*test, _rectangles(len(test[0])), self.log),
        }

    def fingerprint(self) -> str:
        return f"colours-{self.kind}-{self.frames}"

    def split(self, name: SplitName) -> ArraySplit:
        return self._splits[name]

    def _made(self, name: SplitName) -> tuple[Tensor, Tensor]:
        """uint8 [N, 3, 8, 8] or [N, 3, frames, 8, 8], and int64 [N], in random order."""
        generator = torch.Generator().manual_seed(["train", "test"].index(name))
        n = _EACH[name] * len(CLASSES)
        labels = torch.randperm(n, generator=generator) % len(CLASSES)
        strength, spread = (30, 200) if self.kind == "faint" else (200, 40)
        time = (self.frames,) if self.frames > 1 else ()
        noise = torch.randint(0, spread, (n, 3, *time, SIZE, SIZE), generator=generator)
        colours = torch.tensor(RGB)[labels].view(n, 3, *[1] * (noise.ndim - 2))
        images = (colours * strength + noise).to(torch.uint8)
        if self.kind == "shuffled" or (self.kind == "test-shuffled" and name == "test"):
            labels = labels[torch.randperm(n, generator=generator)]
        return images, labels


def _rectangles(count: int) -> Tensor:
    """One per image, with sides of 2 to 4 px, bool [N, 8, 8]."""
    generator = torch.Generator().manual_seed(2)
    ends = []
    for _ in range(2):
        length = torch.randint(2, 5, (count, 1), generator=generator)
        start = (torch.rand(count, 1, generator=generator) * (SIZE + 1 - length)).long()
        ends.append((torch.arange(SIZE) >= start) & (torch.arange(SIZE) < start + length))
    return ends[0][:, :, None] & ends[1][:, None, :]
