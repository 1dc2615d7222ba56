"""Images in rows and columns as one picture, pixel for pixel: small ones are enlarged by whole numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LEAST_SIDE = 96
"""A panel's shorter side is at least this many px."""
MOST_SIDE = 256
"""Larger images are shown reduced."""
_MARGIN, _GAP = 14, 4
_INK, _SOFT, _PAPER = (28, 30, 34), (96, 100, 108), (255, 255, 255)


def image_grid(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    columns: Sequence[str],
    labels: Sequence[str] = (),
    title: str = "",
    footnote: str = "",
) -> bytes:
    """A PNG of `rows` of images, float [C, H, W] in [0, 1], C 1 or 3, all of one size; None leaves a gap.

    columns: a heading for each column, or none. labels: a word beside each row, or none.
    """
    panels = [[None if image is None else _panel(image) for image in row] for row in rows]
    width, height = next(panel.size for row in panels for panel in row if panel)
    large, text, small = (ImageFont.load_default(size) for size in (17, 14, 13))
    heading = 22 if any(columns) else 0
    left = _MARGIN + (max(int(text.getlength(label)) for label in labels) + 8 if labels else 0)
    # A heading may be wider than small panels: the columns make room for it.
    pitch = max([width, *(int(text.getlength(column)) + 6 for column in columns)]) + _GAP
    across = max(len(row) for row in panels)
    total = left + across * pitch - _GAP + _MARGIN
    titles = _wrapped(title, large, total - 2 * _MARGIN)
    notes = _wrapped(footnote, small, total - 2 * _MARGIN)
    top = _MARGIN + 24 * len(titles) + heading
    bottom = top + len(panels) * (height + _GAP)
    sheet = Image.new("RGB", (total, bottom + 18 * len(notes) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, line in enumerate(titles):
        draw.text((_MARGIN, _MARGIN + 24 * index), line, _INK, large)
    for index, column in enumerate(columns):
        draw.text((left + index * pitch + (pitch - _GAP) / 2, top - 5), column, _INK, text, anchor="ms")
    for index, label in enumerate(labels):
        draw.text((left - 8, top + index * (height + _GAP) + height / 2), label, _INK, text, anchor="rm")
    inset = (pitch - _GAP - width) // 2
    for row, across_row in enumerate(panels):
        for place, panel in enumerate(across_row):
            if panel:
                sheet.paste(panel, (left + place * pitch + inset, top + row * (height + _GAP)))
    for index, line in enumerate(notes):
        draw.text((_MARGIN, bottom + 4 + 18 * index), line, _SOFT, small)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def shade_hidden(image: Tensor, hidden: Tensor) -> Tensor:
    """`image` [C, H, W] in [0, 1] as RGB; what is hidden (bool [H, W]) in a blue grey that images rarely have."""
    shade = image.new_tensor([0.45, 0.51, 0.60])[:, None, None]
    return image.expand(3, -1, -1).where(~hidden, shade)


def _panel(image: Tensor) -> Image.Image:
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().expand(3, -1, -1)
    panel = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    shorter, longer = min(panel.size), max(panel.size)
    if longer > MOST_SIDE:
        panel.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
        return panel
    factor = -(-LEAST_SIDE // shorter)
    return panel.resize((panel.width * factor, panel.height * factor), Image.Resampling.NEAREST)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """`text` in lines of at most `width` px, unless one word is longer."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
