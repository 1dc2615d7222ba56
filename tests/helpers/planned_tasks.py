"""The steps of tasks as `mimbench plan` traces them, for the recipe "smoke"."""

from __future__ import annotations

from mimbench.contract import Dataset, Encoder
from mimbench.data import open_dataset
from mimbench.harness.forecast.sizes import AbsentData, sizes_of
from mimbench.harness.forecast.stages import StepOfStage, encoder_of, task_step
from mimbench.harness.forecast.tracing import Target, traced
from mimbench.recipe.document import parse_assignments, read
from mimbench.recipe.resolve import Recipe, resolve


def encoder_and_step(name: str, settings: list[str]) -> tuple[Recipe, Encoder, Dataset, StepOfStage]:
    """A recipe, its encoder, the dataset of the task, and the task's step."""
    recipe = resolve("smoke", read("smoke"), "simmim", parse_assignments(settings), name)
    task = recipe.task(name)
    dataset, options = recipe.task_data(task)
    step = task_step(recipe, task, 1, sizes_of(dataset, options, "task.data", AbsentData()))
    assert step is not None
    return recipe, encoder_of(recipe, 1), open_dataset(dataset, options), step


def traced_peak(step: StepOfStage, images: int) -> int:
    """Bytes on the CPU."""
    with traced(step.build, Target(on_cuda=False, has_flash=False, precision="fp32")) as trace:
        return trace(images, False).total
