"""One annotation file of PASCAL VOC."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from mimbench.data.files.listing import normalize_name
from mimbench.errors import InputError
from mimbench.text import printable, quoted

Box = tuple[float, float, float, float]
"""x, y, width, height, px."""


_MARKS = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
    **dict.fromkeys(("", "0", "0.0", "false", "no", "unspecified"), False),
}
"""What annotation programs write for a mark that is set, or not set."""


def read_annotation(path: Path) -> tuple[int | None, int | None, list[tuple[str, Box, bool]]]:
    """Width and height, None if they are not stated; and for each object its name, box and whether it is difficult.

    Raises:
        InputError: the file cannot be read, or is no VOC annotation.
    """
    tree = _parse(path)
    try:
        width, height = (_side(tree, side) for side in ("width", "height"))
        return width, height, [_object(node) for node in tree.findall("object")]
    except ValueError as error:
        raise InputError(f"voc: {printable(path)} is not a VOC annotation: {error}") from error


def _parse(path: Path) -> ElementTree.Element:
    try:
        content = path.read_bytes()
        if b"<!ENTITY" in content:
            raise InputError(f"voc: {printable(path)} defines XML entities, which VOC annotations have no use for")
        root = ElementTree.fromstring(content)
    except OSError as error:
        raise InputError(f"voc: cannot read {printable(path)}: {error.strerror or error}") from error
    # A LookupError is an encoding that Python does not know.
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"voc: {printable(path)} is not a VOC annotation: {error}") from error
    if root.tag != "annotation":
        raise InputError(
            f"voc: {printable(path)} is not a VOC annotation: its outermost element is {quoted(root.tag)}, "
            "not 'annotation'"
        )
    return root


def _side(tree: ElementTree.Element, side: str) -> int | None:
    text = (tree.findtext(f"size/{side}") or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value.is_integer() or value < 1:  # infinity and NaN are no integers either
        raise ValueError(f"its size/{side} is {quoted(text)}; it should be a whole number of px")
    return int(value)


def _object(node: ElementTree.Element) -> tuple[str, Box, bool]:
    # VOC counts pixels from 1, and its last pixel belongs to the box.
    left, top, right, bottom = (_corner(node, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise ValueError(f"a box ends before it starts: {left:g}, {top:g} to {right:g}, {bottom:g}")
    box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return normalize_name(_text(node, "name")), box, _is_difficult(node)


def _is_difficult(node: ElementTree.Element) -> bool:
    text = (node.findtext("difficult") or "0").strip()
    value = _MARKS.get(text.lower())
    if value is None:
        raise ValueError(f"its difficult is {quoted(text)}; it should be 0 or 1")
    return value


def _corner(node: ElementTree.Element, side: str) -> float:
    text = _text(node, f"bndbox/{side}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"its bndbox/{side} is {quoted(text)}; it should be a number of px")
    return value


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"it has no {path}")
    return text.strip()
