"""The mask ratio of methods whose recipes hold it in other words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mimbench.display import describe_method

MASK_RATIO = "method.mask_ratio"
_DIGITS = 2


def derive_mask_ratio(method: str, recipe: Mapping[str, Any]) -> float | str | None:
    """The mask ratio of a method without an option of that name, as its display file derives it; None if it does not.

    Args:
        recipe: as resolved; its tables [method], [encoder] and [input] count.
    """
    display, options = describe_method(method), recipe.get("method", {})
    if display.masked_patches:
        masked, patches = options.get(display.masked_patches), _count_patches(recipe)
        return round(masked / patches, _DIGITS) if masked and patches else None
    names = re.findall(r"\{(\w+)\}", display.mask_ratio)
    if not display.mask_ratio or any(name not in options for name in names):
        return None
    return re.sub(r"\{(\w+)\}", lambda name: _as_text(options[name[1]]), display.mask_ratio)


def _count_patches(recipe: Mapping[str, Any]) -> int | None:
    """Patches of an image; None if the encoder has no patch size, or more than one grid."""
    encoder, side = recipe.get("encoder", {}), recipe.get("input", {}).get("image_size")
    patch = encoder.get("patch_size")
    if not (isinstance(side, int) and isinstance(patch, int)) or "depths" in encoder:
        return None
    return (side // patch) ** 2


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
