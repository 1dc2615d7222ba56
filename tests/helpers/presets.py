"""The presets, and each resolved for a method."""

from __future__ import annotations

from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import Recipe, resolve


def pairs() -> list[tuple[str, str]]:
    """Every preset with every method that it has an overlay for, and with one or two that need none."""
    return [
        (preset, method)
        for preset in recipe_document.preset_names()
        for method in sorted({*recipe_document.read(preset).get("methods", {}), *_others(preset)})
    ]


def _others(preset: str) -> set[str]:
    """Methods that need no overlay; of a preset of clips, only one takes them."""
    has_clips = recipe_document.read(preset)["input"].get("frames", 1) > 1
    return {"random-init"} if has_clips else {"simmim", "random-init"}


def resolved(preset: str, method: str) -> Recipe:
    return resolve(preset, recipe_document.read(preset), method, {}, None)
