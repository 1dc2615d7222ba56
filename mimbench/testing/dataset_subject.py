"""A dataset under check, and how its images and labels are read, whatever the form of its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mimbench.contract import (
    Config,
    DataConfig,
    Dataset,
    DepthSplit,
    ImageSplit,
    SceneSplit,
    SemanticSplit,
    SplitName,
)
from mimbench.data.files.cache import default_cache
from mimbench.testing.form import make_config

Split = ImageSplit | SceneSplit | SemanticSplit | DepthSplit
Form = Literal["images", "scenes", "pixels", "depth"]
SPLITS: Mapping[Form, type[Split]] = {
    "images": ImageSplit,
    "scenes": SceneSplit,
    "pixels": SemanticSplit,
    "depth": DepthSplit,
}
MOST = 40
"""Images per split that a check reads, evenly spaced."""


class DatasetSubject:
    """A dataset with its options."""

    kind = "dataset"

    def __init__(self, dataset: type[Dataset], options: Mapping[str, Any] | Config | None, cache: Path | None) -> None:
        self.plugin, self._options = dataset, options
        self.cache = cache or default_cache()
        self._opened: Dataset | None = None
        self._scenes: dict[Path, dict[str, Any]] = {}

    def make_config(self) -> DataConfig:
        return make_config(self.plugin, self._options, "data")

    def open(self) -> Dataset:
        """A new instance."""
        return self.plugin(self.make_config(), self.cache)

    @property
    def dataset(self) -> Dataset:
        """The instance that the checks share."""
        if self._opened is None:
            self._opened = self.open()
        return self._opened

    def splits(self) -> dict[SplitName, Split]:
        """Every split by name."""
        return {name: self.dataset.split(name) for name in self.dataset.parts}

    @property
    def form(self) -> Form:
        """What the splits hold, by `provides`."""
        provides = self.dataset.provides
        if "boxes" in provides or "images" in provides:
            return "scenes" if "boxes" in provides else "images"
        return "depth" if "depth" in provides else "pixels"

    def scenes(self, split: SceneSplit) -> dict[str, Any]:
        """The content of its annotation file."""
        if split.annotations not in self._scenes:
            self._scenes[split.annotations] = json.loads(split.annotations.read_text(encoding="utf-8"))
        return self._scenes[split.annotations]

    def file(self, split: Split, index: int) -> Path:
        """The file of an image, for splits of files."""
        if isinstance(split, SceneSplit):
            return split.images / self.scenes(split)["images"][index]["file_name"]
        assert isinstance(split, SemanticSplit | DepthSplit)
        return split.image(index)

    def read(self, split: Split, index: int) -> tuple[bytes, bytes]:
        """Content of an image and of its label, in some form that is equal only if the content is."""
        if isinstance(split, ImageSplit):
            image, label = split[index]
            return _content(image), str(int(label)).encode()
        if isinstance(split, SemanticSplit):
            return split.image(index).read_bytes(), _content(split.labels(index))
        if isinstance(split, DepthSplit):
            return split.image(index).read_bytes(), _content(split.depth(index))
        return self.file(split, index).read_bytes(), b""


def spaced(length: int, most: int = MOST) -> list[int]:
    """Up to `most` evenly spaced indices below `length`, the first and the last included."""
    if length <= most:
        return list(range(length))
    return sorted({round(number) for number in torch.linspace(0, length - 1, most).tolist()})


def _content(values: Tensor) -> bytes:
    return f"{values.dtype} {list(values.shape)}".encode() + values.contiguous().numpy().tobytes()
