"""Recipes: what a run is. Nothing of torch is imported before a recipe is resolved."""

DEFAULT_RECIPE = "mnist5k-vit-tiny"
