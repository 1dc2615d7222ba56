"""A picture of what was predicted beside what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mimbench.data.images import read_pixels
from mimbench_tasks.segmentation.evaluation import IGNORED
from mimbench_tasks.segmentation.labels import BACKGROUND

PANEL = 2.4
"""Side of one image in the picture, inches."""
MOST_NAMED = 24
"""Classes in the legend: those that take most of the images shown."""
UNKNOWN = "white"
GROUND = "#26282c"
"""Of the background class: darker than every colour of the palette."""


@dataclass(frozen=True)
class Panel:
    """One image's file, its labels and the predicted ones, integers [H, W]."""

    image: Path
    truth: np.ndarray
    predicted: np.ndarray


def draw_predictions(path: Path, panels: Sequence[Panel], classes: Sequence[str]) -> Path:
    """Write a PNG: image, truth and prediction one above the other, one column an image, and a legend."""
    colours = class_colours(panels, classes)
    figure = Figure(figsize=(PANEL * len(panels) + 1.6, 3 * PANEL + 0.2), layout="constrained")
    axes = figure.subplots(3, len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        rows = (read_pixels(panel.image, 3), paint(panel.truth, colours), paint(panel.predicted, colours))
        for axis, pixels in zip(axes[:, column], rows, strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("image", "truth", "predicted"), strict=True):
        axis.set_ylabel(name, fontsize=12)
    named = sorted(list(colours)[:MOST_NAMED])
    entries = [Patch(facecolor=colours[label], edgecolor="0.4", label=classes[label]) for label in named]
    if any((panel.truth == IGNORED).any() for panel in panels):
        entries.append(Patch(facecolor=UNKNOWN, edgecolor="0.4", label="not scored"))
    figure.legend(handles=entries, loc="outside right center", fontsize=10, frameon=False)
    figure.savefig(path, dpi=110)
    return path


def class_colours(panels: Sequence[Panel], classes: Sequence[str]) -> dict[int, tuple[float, float, float]]:
    """Colours of the classes in `panels`, the largest first: seaborn's "colorblind" ten, then darker shades of them."""
    counts = np.zeros(256, dtype=np.int64)
    for panel in panels:
        for labels in (panel.truth, panel.predicted):
            counts += np.bincount(labels.ravel(), minlength=256)
    found = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label] and label < len(classes)]
    base = sns.color_palette("colorblind", 10)
    others = [label for label in found if classes[label] != BACKGROUND]
    if len(classes) <= 11:  # every class has its colour for good
        others = [label for label in range(len(classes)) if classes[label] != BACKGROUND]
    places = {label: place for place, label in enumerate(others)}
    colours = {}
    for label in found:
        place = places.get(label)
        shade = 1.0 if place is None else 0.72 ** (place // 10)
        red, green, blue = to_rgb(GROUND) if place is None else base[place % 10]
        colours[label] = (shade * red, shade * green, shade * blue)
    return colours


def paint(labels: np.ndarray, colours: dict[int, tuple[float, float, float]]) -> np.ndarray:
    """Integers [H, W] -> float [H, W, 3]; what has no colour is white."""
    table = np.ones((256, 3))
    for label, colour in colours.items():
        table[label] = colour
    return table[labels]
