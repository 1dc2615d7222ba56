"""Recipes: what a run is. Nothing of torch is imported before a recipe is resolved."""
