"""A task, as a recipe resolves it, as a config file of the library that it is built on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch

from mimbench import registry
from mimbench.contract import Dataset, Task
from mimbench.data import default_cache, open_dataset
from mimbench.errors import InputError
from mimbench.recipe import document as recipe_document
from mimbench.recipe.needs import check_task_needs
from mimbench.recipe.resolve import Recipe, check_settings, resolve
from mimbench.text import print_text


def export_task(task_name: str, recipe_name: str, method: str, settings: Mapping[str, Any]) -> str:
    """The config file of a task for a recipe and method. Nothing is trained and no weights are made.

    Raises:
        InputError: an unknown name or key, or an impossible value.
        NotSupported: the task has no such file.
    """
    task_class: type[Task] = registry.tasks.load(task_name)
    check_settings(list(settings), [method], [task_class.name])
    recipe = resolve(recipe_name, recipe_document.read(recipe_name), method, settings, task_name)
    task = recipe.task(task_name)
    with redirect_stdout(sys.stderr):  # standard output is for the file alone, but libraries print
        dataset = _dataset(task, recipe)
        channels = dataset.channels if dataset and dataset.channels == 1 else len(recipe.input.mean)
        with torch.device("meta"):  # builds any size at once, without weights
            encoder = recipe.encoder_class().build(
                recipe.encoder_config,
                image_size=recipe.input.image_size,
                in_channels=max(channels, 1),
                frames=recipe.input.frames,
            )
        check_task_needs(task, encoder, recipe.encoder)
        if dataset:
            task.check(encoder, dataset)
            for note in dataset.notes:
                print_text(note, error=True)
        return task.export(encoder, dataset, recipe.input)


def _dataset(task: Task, recipe: Recipe) -> Dataset | None:
    """The task's dataset. None if it is named by default but missing; a line on standard error says so."""
    name, options = recipe.task_data(task)
    try:
        return open_dataset(name, options, default_cache(), where="task.data")
    except InputError as error:
        if options:
            raise
        print_text(
            f"dataset {name!r} cannot be opened ({error}); the file names its usual location instead", error=True
        )
        return None
