"""Scenes of coloured squares with boxes and masks, for checks of tasks that need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimbench.contract import DataConfig, Dataset, SceneSplit, SplitName
from mimbench.testing.colours import CLASSES, RGB, Kind, LabelLog

CELL = 16
"""Side of an object, px."""
_EACH = {"train": 48, "test": 40}
"""Number of scenes. Each has one object, whose position is hard to guess, so AP without learning is near 0."""


class ColourScenes(Dataset):
    """RGB scenes of 2 x 2 cells, 32 x 32 px. One cell holds a square in one of six colours, the others are empty.

    The kinds are those of Colours; with "shuffled", each scene has the objects of another, with "test-shuffled" their
    labels only. The labels are in a file, and reads of it are not logged: `log` stays empty, and only the kind
    "test-shuffled" shows whether a task learns from test labels.
    """

    name, channels, side = "colour-scenes", 3, 2 * CELL
    provides = frozenset({"boxes", "masks"})

    def __init__(self, kind: Kind, folder: Path) -> None:
        super().__init__(DataConfig(), folder)
        self.kind = kind
        self.log = LabelLog()
        self._splits = {name: self._written(folder / name, name) for name in ("train", "test")}

    def fingerprint(self) -> str:
        return f"{self.name}-{self.kind}"

    def split(self, name: SplitName) -> SceneSplit:
        return self._splits[name]

    def _written(self, folder: Path, name: str) -> SceneSplit:
        folder.mkdir(parents=True)
        rng = np.random.RandomState(["train", "test"].index(name))
        scenes = [_cells(rng) for _ in range(_EACH[name])]
        for number, cells in enumerate(scenes):
            Image.fromarray(self._drawn(cells, rng)).save(folder / f"{number}.png")
        annotated = scenes
        if self.kind == "shuffled":
            annotated = [scenes[other] for other in rng.permutation(len(scenes))]
        if self.kind == "test-shuffled" and name == "test":
            labels = rng.permutation([label for cells in scenes for label in cells.values()]).tolist()
            annotated = [{cell: labels.pop() for cell in cells} for cells in scenes]
        (folder / "annotations.json").write_text(json.dumps(_as_coco(annotated)))
        return SceneSplit(folder / "annotations.json", folder, CLASSES, len(scenes))

    def _drawn(self, cells: dict[int, int], rng: np.random.RandomState) -> np.ndarray:
        """uint8 [32, 32, 3]."""
        strength, spread = (30, 200) if self.kind == "faint" else (200, 40)
        pixels = rng.randint(0, spread, (self.side, self.side, 3))
        for cell, label in cells.items():
            x, y = _corner(cell)
            pixels[y : y + CELL, x : x + CELL] += np.asarray(RGB[label]) * strength
        return pixels.astype(np.uint8)


def _cells(rng: np.random.RandomState) -> dict[int, int]:
    """Cell -> label of the object in it."""
    return {int(rng.randint(4)): int(rng.randint(len(CLASSES)))}


def _corner(cell: int) -> tuple[int, int]:
    return cell % 2 * CELL, cell // 2 * CELL


def _as_coco(scenes: list[dict[int, int]]) -> dict[str, Any]:
    side = ColourScenes.side
    annotations: list[dict[str, Any]] = []
    for number, cells in enumerate(scenes):
        for cell, label in cells.items():
            x, y = _corner(cell)
            outline = [x, y, x + CELL, y, x + CELL, y + CELL, x, y + CELL]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x, y, CELL, CELL],
                    "area": CELL * CELL,
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
    return {
        "images": [
            {"id": number + 1, "file_name": f"{number}.png", "height": side, "width": side}
            for number in range(len(scenes))
        ],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)],
    }
