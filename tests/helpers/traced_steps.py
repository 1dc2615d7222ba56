"""The steps of methods and tasks of the recipe "smoke", and the memory that they are traced to take."""

from __future__ import annotations

from mimbench.harness.forecast.stages import pretraining_step
from mimbench.harness.forecast.tracing import Target, traced
from mimbench.recipe.document import parse_assignments, read
from mimbench.recipe.resolve import resolve


def recipe_of(method, *assignments, task=None):
    return resolve("smoke", read("smoke"), method, parse_assignments(list(assignments)), task)


def step_of(method, *assignments):
    return pretraining_step(recipe_of(method, *assignments), channels=1)


def target_of(step, **changes):
    precision = step.config.precision
    return Target(
        **{"on_cuda": False, "has_flash": False, "precision": "bf16" if precision == "bf16" else "fp32"} | changes
    )


def memory_of(step, images, **changes):
    with traced(step.build, target_of(step, **changes)) as trace:
        return trace(images, False)
