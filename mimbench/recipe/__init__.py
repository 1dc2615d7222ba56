"""Recipes: what a run is. Nothing of torch is imported before a recipe is resolved."""

AT_EPOCH = "pretrain.at_epoch"
"""The option that takes a pretraining's weights before its end."""
DEFAULT_RECIPE = "mnist5k-vit-tiny"
