"""Recipes: what a run is. Nothing of torch is imported before a recipe is resolved."""

AT_EPOCH = "pretrain.at_epoch"
"""The option that takes a pretraining's weights before its end."""
PRETRAINED = "pretrained"
"""Table of a record's recipe: options in which a given checkpoint's pretraining differs from the run."""
DEFAULT_RECIPE = "mnist5k-vit-tiny"


def is_of_task(path: str) -> bool:
    """Whether a setting is a task's own, which its protocol tells; others shape the pretraining, or how it is seen."""
    return path.startswith(("task.", "tasks."))
