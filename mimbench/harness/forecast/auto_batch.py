"""`auto_batch`: the largest micro-batch of a training on this device, with the batch of the recipe by accumulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from mimbench.contract import Config, Dataset, PlannedStep, Task, TrainConfig
from mimbench.distributed import get_world_size
from mimbench.engine.device import pick_precision
from mimbench.engine.trial import largest_that_runs, try_steps
from mimbench.errors import InputError
from mimbench.harness.forecast.sizes import count_images
from mimbench.harness.forecast.stages import encoder_of, pretraining_step
from mimbench.harness.forecast.tracing import Target, largest_that_fits, traced
from mimbench.harness.planning.size import memory_of
from mimbench.recipe.resolve import Recipe

_OF_MAIN_MEMORY = 0.8
"""Share of the main memory that a training on the CPU may take. A step that needs more is not tried: the system would
end this process."""


class BatchChooser:
    """Replaces `auto_batch` by the `accumulate` that it leads to, before fingerprints are computed.

    So a training has the fingerprint of one with the same `accumulate`, wherever it was found.
    """

    def __init__(self, device: torch.device, say: Callable[[str], None]) -> None:
        """say: prints a line."""
        self.device, self.say = device, say
        self._chosen: dict[str, int] = {}

    def of_pretraining(self, recipe: Recipe, channels: int) -> Recipe:
        """The recipe with `pretrain.accumulate` in place of `pretrain.auto_batch`.

        Raises:
            InputError: not even a micro-batch of one image fits, or the step fails.
        """
        if inner := next(_inner_trainings(recipe.method_config, "method"), None):
            raise InputError(f"{inner}.auto_batch is for pretrain and task.train; set {inner}.accumulate instead")
        if not (recipe.pretrain.auto_batch and recipe.method_class().pretrains):
            return recipe
        step = pretraining_step(recipe, channels)
        key = repr((recipe.as_tables(), channels))
        config = self._with_choice(key, step.build, recipe.pretrain, "pretrain", f"pretraining {recipe.method}")
        sources = {**recipe.sources, "pretrain.accumulate": "pretrain.auto_batch, on this device"}
        return replace(recipe, pretrain=config, sources=sources)

    def of_task(self, recipe: Recipe, task: Task, channels: int, dataset: Dataset) -> Task:
        """The task with `train.accumulate` in place of `train.auto_batch`.

        Raises:
            InputError: as `of_pretraining`, or the task has no planned step to try.
        """
        train = getattr(task.config, "train", None)
        if not isinstance(train, TrainConfig) or not train.auto_batch:
            return task

        def build() -> PlannedStep:
            planned = task.planned_step(encoder_of(recipe, channels), count_images(dataset), recipe.input)
            if planned is None:
                raise InputError(
                    f"task.train.auto_batch: task {task.name!r} has no planned_step with these options; set "
                    "task.train.accumulate instead"
                )
            return planned

        key = repr((recipe.as_tables(), task.name, task.protocol(), channels))
        config = self._with_choice(key, build, train, "task.train", task.name)
        return type(task)(task.config.model_copy(update={"train": config}))

    def _with_choice(self, key: str, build: Callable[[], PlannedStep], config: Any, options: str, label: str) -> Any:
        """config: a TrainConfig, or one that extends it."""
        config.require_processes(get_world_size(), options)
        share = config.micro_batch(get_world_size())
        if key not in self._chosen:
            self._chosen[key] = self._largest(build, config, share, options)
            self.say(
                f"{label}: auto_batch found micro-batches of {self._chosen[key]} images; the same training elsewhere: "
                f"--set {options}.accumulate={config.accumulate * share // self._chosen[key]}"
            )
        accumulate = config.accumulate * share // self._chosen[key]
        return config.model_copy(update={"accumulate": accumulate, "auto_batch": False})

    def _largest(self, build: Callable[[], PlannedStep], config: TrainConfig, share: int, options: str) -> int:
        if self.device.type == "cuda":
            sizes = [share >> shift for shift in range(share.bit_length()) if share % (1 << shift) == 0]
            changes = {"auto_batch": False, "compile": "off"}
            size = largest_that_runs(lambda images: try_steps(build, changes, self.device, images), sizes, self.device)
        else:
            precision = "bf16" if pick_precision(config, self.device) == "bf16" else "fp32"
            with traced(build, Target(False, False, precision, get_world_size())) as trace:
                usable = int(_OF_MAIN_MEMORY * memory_of(self.device)) // get_world_size()
                whole = trace(share, config.accumulate > 1)
                # Two first: batch norm of vectors, and methods that mix images, take no single one.
                memory = largest_that_fits(trace, share, 2, usable, whole) or largest_that_fits(
                    trace, share, 1, usable, whole
                )
            size = memory.images if memory else None
        if size is None:
            raise InputError(
                f"{options}.auto_batch: not even a micro-batch of one image fits; set "
                f"{options}.grad_checkpointing=true, or use a smaller encoder or smaller images"
            )
        return size


def _inner_trainings(config: Config, path: str) -> Iterator[str]:
    """Paths of the tables with `auto_batch` within the options of a method, such as those of a tokenizer's training."""
    if isinstance(config, TrainConfig) and config.auto_batch:
        yield path
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _inner_trainings(value, f"{path}.{name}")
