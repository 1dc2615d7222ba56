"""Scenes for detection that need no download: real digits over clutter, in COCO's format."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from pydantic import Field, model_validator

from mimbench.contract import DataConfig, Dataset, DataSizes, SceneSplit, SplitName
from mimbench.data.files.built_folder import built_folder
from mimbench.data.files.cache import ensure_writable
from mimbench.data.sources.coco import coco_split
from mimbench.data.sources.digit_drawing import COMPOSER_VERSION, MNIST_SIDE, Glyphs, Instance, Scene, compose
from mimbench.data.sources.embedded import EmbeddedConfig, MNIST5k


class ScenesConfig(DataConfig):
    """What the scenes look like."""

    train_scenes: int = Field(default=800, ge=1)
    test_scenes: int = Field(default=200, ge=1)
    size: int = Field(default=96, ge=32)
    """Side of a scene, px."""
    digits: tuple[int, int] = (2, 7)
    """Least and most digits in a scene."""
    scale: tuple[float, float] = (0.6, 1.6)
    """Least and greatest size of a digit, relative to MNIST's 28 px."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> ScenesConfig:
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(f"digits must be two rising numbers from 1, not {self.digits}")
        if not 0.25 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising numbers from 0.25, not {self.scale}")
        if self.scale[1] * MNIST_SIDE > self.size:
            raise ValueError(f"digits of scale {self.scale[1]:g} do not fit into {self.size} px")
        return self


class DigitScenes(Dataset):
    """mnist5k's digits at random scale, position and brightness, overlapping, over clutter.

    Train scenes are composed of mnist5k's training digits and fragments alone, test scenes of its test
    digits. Boxes and masks are of what is visible, as in COCO; every digit keeps at least 60% of its ink
    in view, so that no digit goes without its label. Built on first use into the cache: 8-bit grey PNGs
    and COCO-format annotations with RLE masks; category ids are digit + 1.
    """

    name = "digit-scenes"
    provides = frozenset({"boxes", "masks"})
    Config = ScenesConfig
    config: ScenesConfig
    channels = 1

    def __init__(self, config: ScenesConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self._digits = MNIST5k(EmbeddedConfig(), cache)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, ScenesConfig):
            return None
        counts = config.train_scenes, config.test_scenes
        return DataSizes(*counts, classes=10, channels=1, source="its options", side=config.size, has_objects=True)

    def split(self, name: SplitName) -> SceneSplit:
        return coco_split(self._folder / f"{name}.json", self._folder / name, self.cache)

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        shaping = json.dumps(self.config.shaping(), sort_keys=True)
        return hashlib.sha256(repr((COMPOSER_VERSION, shaping, self._digits.fingerprint())).encode()).hexdigest()

    @cached_property
    def _folder(self) -> Path:
        """Where the scenes lie, built and whole."""
        folder = ensure_writable(self.cache) / f"{self.name}-{self.fingerprint()[:16]}"
        return built_folder(folder, self._build, f"composing {self.name}")

    def _build(self, folder: Path) -> None:
        counts = {"train": self.config.train_scenes, "test": self.config.test_scenes}
        for number, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            digits = self._digits.split("train" if name == "train" else "test")
            glyphs = Glyphs.cut(digits.images[:, 0].numpy(), digits.labels.numpy())
            scenes = [self._compose(glyphs, number, scene) for scene in range(count)]
            for scene, composed in enumerate(scenes):
                Image.fromarray(composed.pixels).save(folder / name / _file_name(scene), compress_level=1)
            (folder / f"{name}.json").write_text(json.dumps(_as_coco(scenes, digits.classes)))

    def _compose(self, glyphs: Glyphs, split: int, scene: int) -> Scene:
        # Each scene has its own stream, so that it does not depend on how many there are.
        rng = np.random.RandomState([self.config.seed, split, scene])
        return compose(rng, glyphs, self.config.size, self.config.digits, self.config.scale)


def _as_coco(scenes: list[Scene], classes: tuple[str, ...]) -> dict:
    images = []
    annotations: list[dict] = []
    for number, scene in enumerate(scenes):
        height, width = scene.pixels.shape
        images.append({"id": number, "file_name": _file_name(number), "height": height, "width": width})
        for instance in scene.instances:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_annotation(instance)})
    return {
        "info": {"description": "digit scenes", "version": COMPOSER_VERSION},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(classes)],
    }


def _annotation(instance: Instance) -> dict:
    left, top, right, bottom = instance.box
    mask = rle.encode(np.asfortranarray(instance.visible, dtype=np.uint8))
    return {
        "category_id": instance.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(instance.visible.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")},
    }


def _file_name(scene: int) -> str:
    return f"{scene:06d}.png"
