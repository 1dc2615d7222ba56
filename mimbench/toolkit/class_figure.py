"""A figure of images, ground truth and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimbench.data.files.image_sizes import read_sized
from mimbench.drawing import LEAST_TEXT, Colour, class_colours
from mimbench.toolkit.class_confusion import IGNORED
from mimbench.toolkit.semantic_splits import BACKGROUND

PANEL = 2.4
"""Side of one image in the figure, inches."""
MOST_NAMED = 24
"""Maximum number of classes in the legend: those with the most pixels in the figure."""
UNKNOWN = "white"


@dataclass(frozen=True)
class Panel:
    """An image with its ground truth and predicted labels, integers [H, W]."""

    image: Path | np.ndarray
    """A file of the labels' size, or uint8 [h, w, C] of any."""
    truth: np.ndarray
    predicted: np.ndarray


def draw_predictions(path: Path, panels: Sequence[Panel], classes: Sequence[str]) -> Path:
    """Write a PNG with one column per image (image, ground truth, prediction) and a legend."""
    colours = panel_colours(panels, classes)
    aspect = panels[0].truth.shape[0] / panels[0].truth.shape[1]
    width = PANEL * len(panels) + 0.4
    size = 72 * LEAST_TEXT * width
    named = sorted(list(colours)[:MOST_NAMED])
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.patches import Patch

    entries = [Patch(facecolor=colours[label], edgecolor="0.4", label=classes[label]) for label in named]
    if any((panel.truth == IGNORED).any() for panel in panels):
        entries.append(Patch(facecolor=UNKNOWN, edgecolor="0.4", label="not scored"))
    # A character is about 0.6 times as wide as high. A colour patch with its margins is about six characters wide.
    longest = max(len(str(entry.get_label())) for entry in entries)
    columns = max(1, min(len(entries), int(72 * width / (0.6 * size * (longest + 6)))))
    legend = (1.4 * -(-len(entries) // columns) + 0.4) * size / 72
    figure = Figure(figsize=(width, 3 * PANEL * min(aspect, 2.0) + 0.3 + legend), layout="constrained")
    axes = figure.subplots(3, len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        rows = (
            _pixels(panel),
            paint(panel.truth, colours),
            paint(panel.predicted, colours),
        )
        for axis, pixels in zip(axes[:, column], rows, strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("image", "ground truth", "prediction"), strict=True):
        axis.set_ylabel(name, fontsize=size)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=size, frameon=False)
    figure.savefig(path, dpi=110)
    return path


def _pixels(panel: Panel) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(panel.image, Path):
        height, width = panel.truth.shape
        return read_sized(panel.image, 3, (width, height))
    return np.repeat(panel.image, 3, axis=2) if panel.image.shape[2] == 1 else panel.image


def panel_colours(panels: Sequence[Panel], classes: Sequence[str]) -> dict[int, Colour]:
    """Label -> colour of the classes in `panels`, those with the most pixels first."""
    counts = np.zeros(256, dtype=np.int64)
    for panel in panels:
        for labels in (panel.truth, panel.predicted):
            counts += np.bincount(labels.ravel(), minlength=256)
    present = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label] and label < len(classes)]
    return class_colours(present, classes, BACKGROUND)


def paint(labels: np.ndarray, colours: dict[int, Colour]) -> np.ndarray:
    """Labels, integers [H, W] -> RGB float [H, W, 3]. Labels without a colour become white."""
    table = np.ones((256, 3))
    for label, colour in colours.items():
        table[label] = colour
    return table[labels]
