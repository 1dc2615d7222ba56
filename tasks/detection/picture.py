"""A picture of what was found beside what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.structures import DetDataSample
from pycocotools.coco import COCO

from mimbench.data.images import read_pixels

PANEL = 3.2
"""Side of one scene in the picture, inches."""


def draw_predictions(
    path: Path,
    samples: Sequence[DetDataSample],
    annotations: COCO,
    images: Path,
    classes: dict[int, str],
    *,
    least_score: float = 0.2,
) -> Path:
    """Write a PNG: the truth above, detections of at least `least_score` below, one column a scene.

    classes: names by COCO category id, in the order of the predicted labels.
    """
    figure = Figure(figsize=(PANEL * len(samples), 2 * PANEL + 0.6), layout="constrained")
    axes = figure.subplots(2, len(samples), squeeze=False)
    for column, sample in enumerate(samples):
        record = annotations.loadImgs([sample.img_id])[0]
        pixels = read_pixels(images / record["file_name"], 3)
        for row, boxes in enumerate((_truth(annotations, sample.img_id, classes), _found(sample, least_score))):
            axis = axes[row, column]
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for box, label, score in boxes:
                _draw(axis, box, label, list(classes.values())[label], score)
    axes[0, 0].set_ylabel("truth", fontsize=13)
    axes[1, 0].set_ylabel(f"found (score ≥ {least_score:g})", fontsize=13)
    figure.savefig(path, dpi=120)
    return path


Labelled = tuple[list[float], int, float | None]
"""Box x1, y1, x2, y2; label; score."""


def _truth(annotations: COCO, image_id: Any, classes: dict[int, str]) -> list[Labelled]:
    labels = {category_id: label for label, category_id in enumerate(classes)}
    records = annotations.loadAnns(annotations.getAnnIds([image_id], list(classes)))
    return [
        ([x, y, x + width, y + height], labels[record["category_id"]], None)
        for record in records
        for x, y, width, height in [record["bbox"]]
    ]


def _found(sample: DetDataSample, least_score: float) -> list[Labelled]:
    found = sample.pred_instances.cpu()
    found = found[found.scores >= least_score]
    return list(zip(found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True))


def _draw(axis: Axes, box: list[float], label: int, name: str, score: float | None) -> None:
    x1, y1, x2, y2 = (value - 0.5 for value in box)  # imshow puts the centre, not the corner, of pixel 0 at 0
    colour = colormaps["tab10"](label % 10)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2))
    axis.text(
        x1,
        y1,
        name if score is None else f"{name} {score:.2f}",
        color="white",
        fontsize=9,
        fontweight="bold",
        verticalalignment="bottom" if y1 > 6 else "top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        clip_on=True,
    )
