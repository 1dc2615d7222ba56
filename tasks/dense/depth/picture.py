"""A figure of images, depth and predicted depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimbench.api import LEAST_TEXT

PANEL = 2.4
"""Side of one image in the figure, inches."""
MAP = "viridis_r"
"""Near is yellow, far is dark."""


@dataclass(frozen=True)
class DepthPanel:
    """An image, uint8 [h, w, C], with its depth and the predicted one, m [H, W]. Depth 0 is unknown, and white."""

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def draw_depths(path: Path, panels: Sequence[DepthPanel]) -> Path:
    """Write a PNG with one column per image (image, depth, predicted depth). All depths share one scale."""
    known = np.concatenate([panel.truth[panel.truth > 0].ravel() for panel in panels] or [np.zeros(0)])
    low, high = np.quantile(known, (0.02, 0.98)) if known.size else (0.0, 1.0)
    aspect = panels[0].truth.shape[0] / panels[0].truth.shape[1]
    width = PANEL * len(panels) + 1.0
    size = 72 * LEAST_TEXT * width
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(width, 3 * PANEL * min(aspect, 2.0) + 0.3), layout="constrained")
    axes = figure.subplots(3, len(panels), squeeze=False)
    drawn = None
    for column, panel in enumerate(panels):
        pixels = panel.image if panel.image.shape[2] == 3 else np.repeat(panel.image, 3, axis=2)
        axes[0, column].imshow(pixels, interpolation="nearest")
        unknown = panel.truth <= 0
        for axis, depth in zip(axes[1:, column], (panel.truth, panel.predicted), strict=True):
            shown = np.ma.masked_array(depth, unknown)
            drawn = axis.imshow(shown, interpolation="nearest", cmap=MAP, vmin=low, vmax=high)
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("image", "depth", "prediction"), strict=True):
        axis.set_ylabel(name, fontsize=size)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes[1:, :], shrink=0.8)
        bar.ax.tick_params(labelsize=size)
        bar.set_label("m", fontsize=size)
    figure.savefig(path, dpi=110)
    return path
