"""A validation part: held out of the training split, and scored in place of the test split."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from mimbench.contract import Dataset, DepthSplit, ImageSplit, SceneSplit, SemanticSplit, SplitName
from mimbench.data.files.cache import ensure_writable, write_if_changed
from mimbench.data.pipeline.subsets import complement, stratified, subset
from mimbench.errors import InputError

Split = ImageSplit | SceneSplit | SemanticSplit | DepthSplit


class Validation(Dataset):
    """A dataset whose "test" split is a share of the training split, and whose "train" split is the rest.

    The test split cannot be reached, so that settings which are chosen here have not seen it. Other splits, such as
    "validation", are those of the dataset. Which samples are held out depends on the training split and the share
    alone. Labelled images are drawn with every class in proportion.
    """

    def __init__(self, inner: Dataset, where: str) -> None:
        """Hold out `inner.config.validation_share` of the training split.

        Args:
            where: path of the dataset's options in the recipe; the message names it.

        Raises:
            InputError: the share, or the rest, would be empty.
        """
        super().__init__(inner.config, inner.cache)
        self.name = inner.name  # type: ignore[misc]  # the name of a class elsewhere, of the wrapped dataset here
        self.provides, self.facts, self.parts = inner.provides, inner.facts, inner.parts
        self.channels, self.frames = inner.channels, inner.frames
        self._inner = inner
        held, rest = (len(places) for places in (self._places["test"], self._places["train"]))
        if not held or not rest:
            raise InputError(
                f"{where}.validation_share {inner.config.validation_share:g} of the {held + rest} training samples of "
                f"dataset {inner.name!r} leaves {'none to score' if not held else 'none to train on'}; change it"
            )
        self.notes = (*inner.notes, f"{held:,} of {held + rest:,} training samples are scored, not the test split")

    def split(self, name: SplitName) -> Split:
        """Raises InputError if there is no split of this name."""
        if name in self._places:
            return self._splits[name]
        if name not in self.parts:
            raise InputError(f"dataset {self.name!r} has no split {name!r}; it has {', '.join(self.parts)}")
        return self._inner.split(name)

    @cached_property
    def _places(self) -> dict[SplitName, list[int]]:
        """Positions in the training split of the samples of each part, sorted."""
        train = self._inner.split("train")
        count = round(self.config.validation_share * len(train))
        labels = np.zeros(len(train), dtype=np.int64)
        if isinstance(train, ImageSplit) and "labels" in self._inner.provides:
            labels = train.labels.numpy()
        held = stratified(labels, count, seed=0)
        return {"train": complement(len(train), held).tolist(), "test": held.tolist()}

    @cached_property
    def _splits(self) -> dict[SplitName, Split]:
        train = self._inner.split("train")
        return {name: self._part(train, places) for name, places in self._places.items()}

    def _part(self, split: Split, places: list[int]) -> Split:
        if isinstance(split, ImageSplit):
            return subset(split, places)
        if isinstance(split, SceneSplit):
            return self._scenes(split, places)
        return _DepthPart(split, places) if isinstance(split, DepthSplit) else _SemanticPart(split, places)

    def _scenes(self, split: SceneSplit, places: list[int]) -> SceneSplit:
        """Some scenes of a COCO file, by their positions in it, as a separate file in the cache."""
        content = json.loads(split.annotations.read_bytes())
        images = [content["images"][place] for place in places]
        ids = {image["id"] for image in images}
        objects = [one for one in content["annotations"] if one["image_id"] in ids]
        if not objects:
            raise InputError(
                f"a part of the training scenes of dataset {self.name!r} holds no objects at validation_share "
                f"{self.config.validation_share:g}; change it"
            )
        text = json.dumps({**content, "images": images, "annotations": objects}).encode()
        name = f"{hashlib.sha256(text).hexdigest()[:32]}.json"
        path = write_if_changed(ensure_writable(self.cache) / "validation" / name, text)
        return SceneSplit(path, split.images, split.classes, len(images))

    def fingerprint(self) -> str:
        return self.fingerprint_at(self.config.validation_share)

    def fingerprint_at(self, share: float) -> str:
        """The fingerprint that the same data has with another share held out; 0: none."""
        inner = self._inner.fingerprint()
        return hashlib.sha256(repr(("validation", share, inner)).encode()).hexdigest() if share else inner


class _SemanticPart(SemanticSplit):
    """The images of `split` at `places`."""

    def __init__(self, split: SemanticSplit, places: list[int]) -> None:
        self.classes, self._split, self._places = split.classes, split, places

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> Path:
        return self._split.image(self._places[index])

    def shape(self, index: int) -> tuple[int, int]:
        return self._split.shape(self._places[index])

    def labels(self, index: int) -> Tensor:
        return self._split.labels(self._places[index])


class _DepthPart(DepthSplit):
    """The images of `split` at `places`."""

    def __init__(self, split: DepthSplit, places: list[int]) -> None:
        self.max_depth, self._split, self._places = split.max_depth, split, places

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> Path:
        return self._split.image(self._places[index])

    def shape(self, index: int) -> tuple[int, int]:
        return self._split.shape(self._places[index])

    def depth(self, index: int) -> Tensor:
        return self._split.depth(self._places[index])
