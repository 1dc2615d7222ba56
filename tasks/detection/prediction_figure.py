"""A figure of ground truth and predicted boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.structures import DetDataSample
from pycocotools.coco import COCO

from mimbench.api import LEAST_TEXT, Colour, class_colours, ink_on, read_sized

PANEL = 3.2
"""Side of one scene in the figure, inches."""
LABEL = 0.6
"""Text size of box labels relative to other text. Larger labels would cover the objects."""


def draw_predictions(
    path: Path,
    samples: Sequence[DetDataSample],
    annotations: COCO,
    images: Path,
    classes: dict[int, str],
    *,
    least_score: float = 0.2,
) -> Path:
    """Write a PNG with one column per scene: ground truth above, predictions below.

    Args:
        path: the PNG.
        samples: predictions, one sample per scene.
        annotations: the ground truth.
        images: folder of the scenes.
        classes: COCO category id -> class name, in the order of the predicted labels.
        least_score: predictions with a lower score are not drawn.
    """
    width = PANEL * len(samples)
    size = 72 * LEAST_TEXT * width
    names, scenes = list(classes.values()), []
    for sample in samples:
        scenes.append((_ground_truth(annotations, sample.img_id, classes), _predicted(sample, least_score)))
    # Frequent classes get the colours that differ most.
    counts = Counter(label for scene in scenes for boxes in scene for _, label, _ in boxes)
    colours = class_colours([label for label, _ in counts.most_common()], names)
    figure = Figure(figsize=(width, 2 * PANEL + 0.6), layout="constrained")
    axes = figure.subplots(2, len(samples), squeeze=False)
    for column, (sample, scene) in enumerate(zip(samples, scenes, strict=True)):
        record = annotations.loadImgs([sample.img_id])[0]
        pixels = read_sized(images / record["file_name"], 3, (record["width"], record["height"]))
        for row, boxes in enumerate(scene):
            axis = axes[row, column]
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for box, label, score in boxes:
                _draw(axis, box, colours[label], _named(names[label], score), LABEL * size)
    axes[0, 0].set_ylabel("ground truth", fontsize=size)
    axes[1, 0].set_ylabel(f"prediction\n(score ≥ {least_score:g})", fontsize=size)
    figure.savefig(path, dpi=120)
    return path


Labelled = tuple[list[float], int, float | None]
"""Box x1, y1, x2, y2; label; score."""


def _ground_truth(annotations: COCO, image_id: Any, classes: dict[int, str]) -> list[Labelled]:
    labels = {category_id: label for label, category_id in enumerate(classes)}
    boxes: list[Labelled] = []
    for record in annotations.loadAnns(annotations.getAnnIds([image_id], list(classes))):
        x, y, width, height = record["bbox"]
        boxes.append(([x, y, x + width, y + height], labels[record["category_id"]], None))
    return boxes


def _predicted(sample: DetDataSample, least_score: float) -> list[Labelled]:
    boxes = sample.pred_instances.cpu()
    boxes = boxes[boxes.scores >= least_score]
    return list(zip(boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True))


def _named(name: str, score: float | None) -> str:
    """The class name, and the score with two decimals and without its leading zero, to save space."""
    return name if score is None else f"{name} {score:.2f}".replace(" 0.", " .")


def _draw(axis: Axes, box: list[float], colour: Colour, text: str, size: float) -> None:
    """Draw a box and its label, at the box's upper edge and within the image; `size` of the text is in points."""
    x1, y1, x2, y2 = (value - 0.5 for value in box)  # imshow puts the centre, not the corner, of pixel 0 at 0
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=size / 5))
    right, bottom = axis.get_xlim()[1], axis.get_ylim()[0]
    character = size / 72 / PANEL * max(right, bottom)  # height, in the image's pixels; with room 0.72 as wide
    axis.text(
        max(-0.5, min(x1, right - 0.72 * character * len(text))),
        max(-0.5, y1 - 1.3 * character),
        text,
        color=ink_on(colour),
        fontsize=size,
        verticalalignment="top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
        clip_on=True,
    )
