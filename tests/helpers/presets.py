"""The presets, and each resolved for a method."""

from __future__ import annotations

from mimbench.recipe import document as recipe_document
from mimbench.recipe.resolve import Recipe, resolve


def pairs() -> list[tuple[str, str]]:
    """Every preset with every method that it has an overlay for, and with two that need none."""
    return [
        (preset, method)
        for preset in recipe_document.preset_names()
        for method in sorted({*recipe_document.read(preset).get("methods", {}), "simmim", "random-init"})
    ]


def resolved(preset: str, method: str) -> Recipe:
    return resolve(preset, recipe_document.read(preset), method, {}, None)
