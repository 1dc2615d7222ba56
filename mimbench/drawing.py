"""Images in rows and columns as one picture, pixel for pixel: small ones are enlarged by whole numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LEAST_SIDE = 96
"""A panel's shorter side is at least this many px."""
MOST_SIDE = 256
"""Larger images are shown reduced."""
FRAME_TIME = 150
"""Milliseconds per frame of a moving picture."""
LEAST_TEXT = 6 / 72 / 3.3
"""Height of the smallest text over a picture's width: 6 points if it fills the column of a paper."""
_TEXT, _SMALL = 14, 13
_MARGIN, _GAP = 14, 4
_INK, _SOFT, _PAPER = (28, 30, 34), (96, 100, 108), (255, 255, 255)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""
GROUND: Colour = (0.15, 0.16, 0.17)
"""The colour of the background class: darker than every colour of the palette."""


def image_grid(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    columns: Sequence[str],
    labels: Sequence[str] = (),
    title: str = "",
    footnote: str = "",
) -> bytes:
    """A PNG of `rows` of images, float [C, H, W] in [0, 1], all of one size; None leaves a gap.

    Of more than three channels the first three are shown, of two the first.

    columns: a heading for each column, or none. labels: a word to the left of each row, or none.
    """
    panels = [[None if image is None else _panel(image) for image in row] for row in rows]
    sheet = _laid_out(panels, columns, labels, 1.0)
    # Larger text may need more room, but no more than panels give: else a long heading would make all of it grow.
    words = [ImageFont.load_default(_SMALL).getlength(word) for column in columns for word in column.split()]
    most = _size(panels)[0] / max(words, default=1)
    for _ in range(4):
        scale = max(1.0, min(most, sheet.total * LEAST_TEXT / _SMALL))
        if scale <= sheet.scale:
            break
        sheet = _laid_out(panels, columns, labels, scale)
    return sheet.drawn(panels, title, footnote)


def animate(frames: Sequence[bytes]) -> bytes:
    """An animated PNG that shows `frames`, PNGs of one size, again and again; the last one stays longest."""
    images = [Image.open(io.BytesIO(frame)) for frame in frames]
    times = [FRAME_TIME] * (len(images) - 1) + [3 * FRAME_TIME]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=times, loop=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Sheet:
    """Where everything is, px."""

    scale: float
    """Of all text."""
    left: int
    pitch: int
    """From one column to the next."""
    total: int
    """Width."""
    columns: list[list[str]]
    labels: list[list[str]]
    """In lines."""

    def font(self, size: int) -> _Font:
        return ImageFont.load_default(size * self.scale)

    def px(self, size: float) -> int:
        return round(size * self.scale)

    def drawn(self, panels: Sequence[Sequence[Image.Image | None]], title: str, footnote: str) -> bytes:
        width, height = _size(panels)
        large, text, small = self.font(17), ImageFont.load_default(_text(self.scale)), self.font(_SMALL)
        titles = _wrapped(title, large, self.total - 2 * _MARGIN)
        notes = _wrapped(footnote, small, self.total - 2 * _MARGIN)
        heading = self.px(6) + self.px(16) * max(map(len, self.columns)) if any(self.columns) else 0
        top = _MARGIN + self.px(24) * len(titles) + heading
        bottom = top + len(panels) * (height + _GAP)
        sheet = Image.new("RGB", (self.total, bottom + self.px(18) * len(notes) + _MARGIN), _PAPER)
        draw = ImageDraw.Draw(sheet)
        for index, line in enumerate(titles):
            draw.text((_MARGIN, _MARGIN + self.px(24) * index), line, _INK, large)
        for index, lines in enumerate(self.columns):
            middle = self.left + index * self.pitch + (self.pitch - _GAP) / 2
            for above, line in enumerate(reversed(lines)):
                draw.text((middle, top - self.px(5) - self.px(16) * above), line, _INK, text, anchor="ms")
        for index, lines in enumerate(self.labels):
            middle = top + index * (height + _GAP) + height / 2
            for place, line in enumerate(lines):
                y = middle + self.px(16) * (place - (len(lines) - 1) / 2)
                draw.text((self.left - 8, y), line, _INK, text, anchor="rm")
        inset = (self.pitch - _GAP - width) // 2
        for row, across_row in enumerate(panels):
            for place, panel in enumerate(across_row):
                if panel:
                    sheet.paste(panel, (self.left + place * self.pitch + inset, top + row * (height + _GAP)))
        for index, line in enumerate(notes):
            draw.text((_MARGIN, bottom + 4 + self.px(18) * index), line, _SOFT, small)
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def _laid_out(
    panels: Sequence[Sequence[Image.Image | None]], columns: Sequence[str], labels: Sequence[str], scale: float
) -> _Sheet:
    width, _ = _size(panels)
    text = ImageFont.load_default(_text(scale))
    heads = [_wrapped(column, text, width) for column in columns]
    # One rule for all labels: each in one line, or each broken to the width of the longest word.
    wide = any(text.getlength(label) > width for label in labels)
    longest = max((text.getlength(word) for label in labels for word in label.split()), default=0)
    names = [_wrapped(label, text, int(longest) + 1 if wide else width) for label in labels]
    left = _MARGIN + (max(int(text.getlength(line)) for lines in names for line in lines) + 8 if names else 0)
    # A word of a heading may be wider than small panels: the columns make room for it.
    pitch = max([width, *(int(text.getlength(line)) + 6 for lines in heads for line in lines)]) + _GAP
    total = left + max(len(row) for row in panels) * pitch - _GAP + _MARGIN
    return _Sheet(scale, left, pitch, total, heads, names)


def _text(scale: float) -> float:
    """Size of headings and labels, px; enlarged, they are no larger than the smallest."""
    return max(_TEXT, _SMALL * scale)


def _size(panels: Sequence[Sequence[Image.Image | None]]) -> tuple[int, int]:
    return next(panel.size for row in panels for panel in row if panel)


def class_colours(labels: Sequence[int], classes: Sequence[str], ground: str | None = None) -> dict[int, Colour]:
    """A colour for each label in `labels`, the same for a class in every picture of a data set with few classes.

    seaborn's "colorblind" ten, which stay distinct under the three common colour-vision deficiencies, then darker
    shades of them. Of more than ten classes those get the plain ten that come first in `labels`.

    classes: names by label. ground: the name of the background class, if there is one.
    """
    import seaborn

    palette = seaborn.color_palette("colorblind", 10)
    kinds = [label for label, name in enumerate(classes) if name != ground]
    if len(kinds) > len(palette):
        kinds = [label for label in labels if classes[label] != ground]
    places = {label: place for place, label in enumerate(kinds)}
    colours: dict[int, Colour] = {}
    for label in labels:
        if classes[label] == ground:
            colours[label] = GROUND
        else:
            red, green, blue = palette[places[label] % len(palette)]
            shade = 0.72 ** (places[label] // len(palette))
            colours[label] = (shade * red, shade * green, shade * blue)
    return colours


def ink_on(colour: Colour) -> str:
    """Black or white, whichever is read better on `colour` (relative luminance, WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def shade_masked(image: Tensor, mask: Tensor) -> Tensor:
    """`image` [C, H, W] in [0, 1] as RGB [3, H, W], with masked pixels (bool [H, W]) in a shade of blue grey."""
    shade = image.new_tensor([0.45, 0.51, 0.60])[:, None, None]
    return as_rgb(image).where(~mask, shade)


def as_rgb(image: Tensor) -> Tensor:
    """[3, H, W]: the first three channels of [C, H, W], or the first one in grey if there are fewer."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def _panel(image: Tensor) -> Image.Image:
    pixels = (as_rgb(image.detach()).float().cpu().clamp(0, 1) * 255).round().byte()
    panel = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    shorter, longer = min(panel.size), max(panel.size)
    if longer > MOST_SIDE:
        panel.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
        return panel
    factor = -(-LEAST_SIDE // shorter)
    return panel.resize((panel.width * factor, panel.height * factor), Image.Resampling.NEAREST)


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """`text` in lines of at most `width` px, unless one word is longer."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
