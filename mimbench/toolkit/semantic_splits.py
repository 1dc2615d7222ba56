"""Splits of any dataset with masks as images with one class per pixel."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from pycocotools.coco import COCO
from torch import Tensor

from mimbench.contract import Dataset, InputError, SceneSplit, SemanticSplit, SplitName
from mimbench.toolkit.splits import missing_masks_note

BACKGROUND = "background"


class SceneLabels(SemanticSplit):
    """COCO-format instance masks as label maps: class 0 is the background, category k (by id, from 0) is k + 1.

    Where masks overlap, the instance that stands later in the file wins: in scenes that are drawn one object after
    another, the one in front.
    """

    def __init__(self, split: SceneSplit) -> None:
        """Raises InputError where the annotations cannot be read, or an object has no mask."""
        self.split = split
        try:
            with redirect_stdout(StringIO()):
                self._coco = COCO(str(split.annotations))
            categories = self._coco.loadCats(sorted(self._coco.getCatIds()))
            self.classes = (BACKGROUND, *(str(category["name"]) for category in categories))
            self._infos = [self._coco.imgs[key] for key in sorted(self._coco.imgs)]
            objects = list(self._coco.anns.values())
        except (OSError, ValueError, KeyError, AssertionError) as error:
            raise InputError(f"cannot read {split.annotations} as COCO annotations: {error!r}") from error
        bare = [one["id"] for one in objects if not one.get("segmentation")]
        if bare or not objects:
            what = f"object {bare[0]} of {len(objects)} has no mask" if bare else "there is no object"
            raise InputError(f"{split.annotations}: {what}; segmentation learns from masks")
        self._label = {category["id"]: label for label, category in enumerate(categories, start=1)}

    def __len__(self) -> int:
        return len(self._infos)

    def image(self, index: int) -> Path:
        return self.split.images / self._infos[index]["file_name"]

    def shape(self, index: int) -> tuple[int, int]:
        return self._infos[index]["height"], self._infos[index]["width"]

    def labels(self, index: int) -> Tensor:
        labels = torch.zeros(self.shape(index), dtype=torch.uint8)
        for one in self._coco.imgToAnns[self._infos[index]["id"]]:
            mask = torch.from_numpy(self._coco.annToMask(one)).bool()
            labels[mask] = self._label[one["category_id"]]
        return labels


def semantic_split(dataset: Dataset, name: SplitName) -> SemanticSplit:
    """A split of `dataset` with one class per pixel.

    Raises:
        InputError: it has neither label maps nor instance masks, has too many classes, or does not suit its images.
    """
    split = dataset.split(name)
    no_masks = (
        f"dataset {dataset.name!r} has no masks, and the task needs a class per pixel; choose a dataset with masks"
    )
    if isinstance(split, SceneSplit):
        if "masks" not in dataset.provides:
            raise InputError(f"{no_masks}{missing_masks_note(dataset)}")
        split = SceneLabels(split)
    if not isinstance(split, SemanticSplit):
        raise InputError(no_masks)
    if not 2 <= len(split.classes) <= 255:
        raise InputError(f"dataset {dataset.name!r} has {len(split.classes)} classes, and a label map holds 2 to 255")
    return split


def train_and_test(dataset: Dataset) -> tuple[SemanticSplit, SemanticSplit]:
    """Training and test images. Raises InputError as `semantic_split`, or where their classes differ."""
    train, test = semantic_split(dataset, "train"), semantic_split(dataset, "test")
    if train.classes != test.classes:
        raise InputError(f"the training and the test split of dataset {dataset.name!r} list different classes")
    return train, test
