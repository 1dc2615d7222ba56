"""The monitors of a pretraining, checked before anything is trained."""

from __future__ import annotations

from mimbench import registry
from mimbench.contract import Monitor
from mimbench.errors import InputError
from mimbench.harness.planning.cells import Pretraining

FEWEST = 10
"""Images that monitors need."""


def load_monitors(pretraining: Pretraining) -> list[Monitor]:
    """The monitors that a pretraining asks for, each once.

    Raises:
        InputError: one is unknown or broken, needs labels that the dataset does not have, or there are too few images.
    """
    recipe = pretraining.recipe
    monitors = []
    for name in dict.fromkeys(recipe.pretrain.monitor):
        try:
            monitors.append(registry.monitors.load(name)())
        except InputError as error:
            raise InputError(f"pretrain.monitor: {error}") from error
    for monitor in monitors:
        if monitor.needs_labels and "labels" not in pretraining.dataset.provides:
            raise InputError(
                f"pretrain.monitor: {monitor.name!r} needs labels, but dataset {recipe.dataset!r} has none; "
                "leave it out"
            )
    if monitors and pretraining.image_count < FEWEST:
        raise InputError(
            f"pretrain.monitor: monitors need {FEWEST} or more training images, and there are "
            f"{pretraining.image_count}; leave them out"
        )
    return monitors
