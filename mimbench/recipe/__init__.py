"""Recipes: every setting of a run. Reading one imports no torch; resolving one does."""

AT_EPOCH = "pretrain.at_epoch"
"""The setting that takes the weights of a pretraining after an earlier epoch than its last."""
AT_STEP = "pretrain.at_step"
"""The same for a pretraining whose budget is in optimizer steps."""
AT = (AT_EPOCH, AT_STEP)
PRETRAINED = "pretrained"
"""Table of a record's recipe: settings that the checkpoint named by --checkpoint was trained with, if they differ from
those of the run."""
DEFAULT_RECIPE = "mnist5k-vit-tiny"
DEFAULT_CLIPS = "moving-digits-vit-tiny"
"""The recipe that takes the default's place if a chosen method or task takes clips only."""


def is_of_task(path: str) -> bool:
    """Whether a setting belongs to a task, so that its protocol shows it. All others belong to the pretraining."""
    return path.startswith(("task.", "tasks."))
