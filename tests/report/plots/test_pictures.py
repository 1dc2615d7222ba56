"""Pictures of tasks: text that is legible in a column of a paper, colours that mean the same class everywhere."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from helpers import plot_records as made
from mimbench.drawing import GROUND, LEAST_TEXT, class_colours, image_grid, ink_on
from mimbench.report.plots.kinds import figure, figures
from mimbench.report.plots.sheet import HIGHEST
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.toolkit.class_figure import Panel, panel_colours

DIGITS = tuple("0123456789")


@pytest.fixture
def sizes(monkeypatch):
    """Sizes of the fonts that are asked for, px."""
    text_sizes = []
    load = ImageFont.load_default

    def noted(size):
        text_sizes.append(size)
        return load(size)

    monkeypatch.setattr(ImageFont, "load_default", noted)
    return text_sizes


def grid(across, rows=2, **texts):
    images = [[torch.zeros(1, 28, 28)] * across] * rows
    with Image.open(io.BytesIO(image_grid(images, **texts))) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_text_of_a_wide_picture_is_as_large_as_in_a_narrow_one(columns, sizes):
    heads = ["image", *(f"{10 * n}% hidden" for n in range(1, columns))]
    drawn = grid(columns, columns=heads, labels=["100% hidden", "75% hidden"], footnote="What is hidden is withheld.")
    last = sizes[-3:]
    assert min(last) >= 0.99 * LEAST_TEXT * drawn.shape[1], "6 points at the width of a column"
    assert drawn.shape[1] < 140 + 160 * columns, "headings in lines, not wider panels"


def test_a_long_heading_does_not_make_all_text_grow():
    assert grid(10, columns=["reconstructed"] * 10).shape[1] < 10 * 140


def test_headings_stay_clear_of_panels_and_edges():
    drawn = grid(10, columns=["image", *(f"{10 * n}% hidden" for n in range(1, 10))]).astype(int)
    first = int((drawn == 0).all(-1).any(1).argmax())  # the first row of black panels
    assert (drawn[first - 1] == 255).all()
    assert (drawn[:4] == 255).all()
    inked = (drawn[:first] < 128).any((0, 2))
    gaps = np.diff(np.flatnonzero(np.diff(np.pad(~inked, 1).astype(int))))[::2]
    assert (gaps > 3).sum() >= 9, "a gap between all columns"


def test_a_class_has_one_colour_in_segmentation_and_detection():
    labels = np.arange(11).reshape(1, 11)
    of_masks = panel_colours([Panel(None, labels, labels)], ("background", *DIGITS))
    of_boxes = class_colours([7, 3, 0], DIGITS)
    assert of_boxes == {label: of_masks[label + 1] for label in (7, 3, 0)}
    assert of_masks[0] == GROUND
    assert class_colours([3], DIGITS)[3] == of_boxes[3]


def test_of_many_classes_the_ones_shown_first_get_the_plain_colours():
    names = [str(n) for n in range(80)]
    few = class_colours([70, 3, 41], names)
    assert list(few.values()) == list(class_colours([0, 1, 2], DIGITS).values())
    assert len(set(class_colours(range(40), names).values())) == 40


def test_text_is_read_on_every_colour():
    colours = class_colours(range(10), DIGITS)
    assert ink_on(colours[8]) == "black"  # yellow
    assert ink_on(GROUND) == ink_on((0.0, 0.2, 0.5)) == "white"


def test_pictures_that_were_stored_before_are_drawn_and_tall_ones_fit_on_a_page(record, tmp_path):
    tall = made.stored(made.rebuilt(record), tmp_path / "tall", side=(300, 1200))
    drawn = figures("rebuilt", Source.read(tall), Options())
    assert len(drawn) == 2
    for fig in drawn:
        assert fig.get_figheight() <= HIGHEST
        (axes,) = fig.axes
        assert axes.images[0].get_array().shape[:2] == (1200, 300)
    wide = made.stored(made.rebuilt(record), tmp_path / "wide")
    assert len(figure("rebuilt", Source.read(wide)).axes) == 2


def test_damaged_pictures_are_left_out_and_the_note_says_so(record, tmp_path):
    results = made.stored(made.rebuilt(record), tmp_path / "results")
    first, *_ = sorted(results.rglob("*.png"))
    content = bytearray(first.read_bytes())
    content[-30] ^= 1
    first.write_bytes(content)
    drawn = figure("rebuilt", Source.read(results))
    assert len(drawn.axes) == 1
    for path in results.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(NothingToPlot, match="no readable picture of 2 records"):
        figure("rebuilt", Source.read(results))
