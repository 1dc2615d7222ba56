"""The digits of `digit-scenes`, each cut out of its scene, as a set for classification."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mimbench.contract import ArraySplit, Dataset, SplitName
from mimbench.data.sources.digit_scenes import DigitScenes, ScenesConfig

SIDE = 28
"""px; MNIST's."""
_VERSION = 1


class CropsConfig(ScenesConfig):
    """What the scenes look like that the digits are cut out of."""


class DigitCrops(Dataset):
    """Digits cut out of the scenes of `digit-scenes` by their boxes: over clutter, partly hidden, at any scale.

    Each box is cut out as a square around its centre, and resized to 28 px. Images are uint8 [N, 1, 28, 28].
    """

    name = "digit-crops"
    Config = CropsConfig
    config: CropsConfig
    channels = 1

    def __init__(self, config: CropsConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self._scenes = DigitScenes(ScenesConfig(**config.model_dump()), cache)

    def split(self, name: SplitName) -> ArraySplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((_VERSION, SIDE, self._scenes.fingerprint())).encode()).hexdigest()

    @cached_property
    def _splits(self) -> dict[str, ArraySplit]:
        return {name: self._cut(name) for name in ("train", "test")}

    def _cut(self, name: str) -> ArraySplit:
        scenes = self._scenes.split(name)
        content = json.loads(scenes.annotations.read_text(encoding="utf-8"))
        labels_of = {category["id"]: label for label, category in enumerate(content["categories"])}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        pictures: dict[int, Image.Image] = {}
        crops, labels = [], []
        for one in content["annotations"]:
            place = one["image_id"]
            if place not in pictures:
                with Image.open(scenes.images / files[place]) as opened:
                    pictures[place] = opened.convert("L")
            crops.append(_square(pictures[place], one["bbox"]))
            labels.append(labels_of[one["category_id"]])
        return ArraySplit(torch.from_numpy(np.stack(crops))[:, None], torch.tensor(labels), scenes.classes)


def _square(picture: Image.Image, box: list[float]) -> np.ndarray:
    """The square around a box [left, top, width, height], black beyond the picture: uint8 [SIDE, SIDE]."""
    left, top, width, height = box
    side = max(width, height)
    start = (round(left + (width - side) / 2), round(top + (height - side) / 2))
    square = picture.crop((*start, start[0] + round(side), start[1] + round(side)))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
