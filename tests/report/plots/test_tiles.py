"""Pictures are taken apart into their images, and drawn with methods as rows or columns."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import plot_records as made
from mimbench.drawing import image_grid
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.tiles import split_tiles

GREYS = (0.0, 0.25, 0.5)


def picture(rows=4, greys=GREYS) -> Image.Image:
    """As pretrainings leave them: a title, headings, and images."""
    images = [[torch.full((1, 28, 28), grey + row / 100) for grey in greys] for row in range(rows)]
    content = image_grid(images, columns=("original", "masked", "reconstructed")[: len(greys)], title="mae, seed 0")
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_images_are_found_between_titles_and_gaps():
    tiles = split_tiles(picture())
    assert [len(row) for row in tiles] == [3] * 4
    assert {image.size for row in tiles for image in row} == {(112, 112)}
    shown = [[round(float(np.asarray(image).mean()) / 255, 2) for image in row] for row in tiles]
    assert shown == [[pytest.approx(grey + row / 100, abs=0.01) for grey in GREYS] for row in range(4)]
    assert split_tiles(Image.new("RGB", (200, 200), "white")) is None


def test_reconstructions_have_methods_as_columns(record, tmp_path):
    records = [
        made.one(record, method, artifacts={"reconstruction": f"artifacts/{method}/reconstruction.png"})
        for method in ("simmim", "mae")
    ]
    folder = made.stored(records, tmp_path / "runs")
    for path in folder.rglob("*.png"):
        picture().save(path)
    (axes,) = figure("reconstructions", Source.read(folder), Options(width=3.4)).axes
    assert [text.get_text() for text in axes.texts] == ["Original", "SimMIM", "MAE"]
    assert len(axes.images) == 4 * (1 + 2 * 2)


def test_ground_truth_is_drawn_once_above_all_methods(record, tmp_path):
    folder = made.stored(made.detected(record), tmp_path / "runs")
    for path in folder.rglob("*.png"):
        picture(rows=2).save(path)
    (axes,) = figure("detections", Source.read(folder), Options(width=3.4)).axes
    assert [text.get_text().replace("\n", " ") for text in axes.texts] == ["Ground truth", "Random init", "SimMIM"]
    assert len(axes.images) == 3 * 3
