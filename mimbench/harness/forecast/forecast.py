"""What each stage of a recipe needs: counted operations, traced memory, and the time and disk that follow from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from mimbench.advice import short_text
from mimbench.contract import DataSizes, PlannedStep, Task, TrainConfig
from mimbench.engine.bare_step import BareStep
from mimbench.errors import InputError
from mimbench.harness.forecast.gpus import Card
from mimbench.harness.forecast.memory import StepMemory
from mimbench.harness.forecast.sizes import AbsentData, pretraining_images, sizes_of
from mimbench.harness.forecast.stages import (
    StepOfStage,
    encoder_of,
    is_forward_only,
    pretraining_step,
    stages_before,
    task_step,
)
from mimbench.harness.forecast.tracing import (
    Target,
    count_flops,
    count_forward,
    largest_that_fits,
    quiet,
    traced,
)
from mimbench.optim import Schedule
from mimbench.recipe.resolve import Recipe

FORWARD_BATCH = 256
"""Images per forward pass of frozen features."""
_STATES_KEPT = 3
"""Saved states of a training that are on disk at one time: the two newest, and the next while it is written."""


@dataclass(frozen=True)
class Machine:
    """What the stages run on."""

    device: str
    """Such as "H100" or "cpu"."""
    count: int
    memory: float
    """GiB of one device."""
    usable: int
    """Bytes of one device that a training may take."""
    on_cuda: bool
    card: Card | None = None
    """None: no peak rate is known."""

    def target(self, config: TrainConfig) -> Target:
        is_ampere = self.card.is_ampere if self.card else self.on_cuda
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if is_ampere else "fp32"
        return Target(self.on_cuda, is_ampere, precision, self.count)


@dataclass(frozen=True)
class Stage:
    """One line of a forecast; None stands for what is not known."""

    name: str
    trained: int
    """Parameters with a gradient."""
    frozen: int
    """Parameters without one, such as those of an EMA teacher."""
    flops: float | None = None
    """Per image: of forward and backward pass, recomputation included; of the forward pass if nothing is trained."""
    images: int | None = None
    """Seen in the whole stage."""
    batch: int | None = None
    """Images per optimizer step."""
    accumulate: int = 1
    precision: str = "fp32"
    options: str = ""
    """Path of the table of the training; "" if nothing is trained."""
    memory: StepMemory | None = None
    """With the recipe's micro-batch."""
    largest: StepMemory | None = None
    """With the largest micro-batch that fits."""
    has_checkpointing: bool = False
    seconds: float | None = None
    disk: int | None = None
    """Bytes while the stage runs: saved states, a checkpoint, or features."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Forecast:
    method: str
    encoder: str
    recipe: str
    machine: Machine
    mfu: float
    measured: bool
    """Whether seconds are from steps measured on this machine."""
    stages: list[Stage] = field(default_factory=list)
    data: dict[str, DataSizes] = field(default_factory=dict)
    """By name of the dataset."""
    notes: list[str] = field(default_factory=list)


def forecast(
    recipe_of: Callable[[str | None], Recipe],
    tasks: Sequence[str],
    machine: Machine,
    *,
    mfu: float,
    absent: AbsentData,
    measure_seconds: float = 0.0,
) -> Forecast:
    """Plan one method and its tasks. Nothing is trained, unless steps are measured.

    Args:
        recipe_of: the recipe as it is resolved for a task, or for none.
        mfu: share of the peak rate of the card that a training reaches (model FLOPs utilisation).
        measure_seconds: measure the steps of each stage on this machine for so long; 0: not.

    Raises:
        InputError: a setting that cannot be used, or a dataset that is absent and of unknown size.
    """
    with quiet():
        return _forecast(recipe_of, tasks, machine, mfu, absent, measure_seconds)


def _forecast(
    recipe_of: Callable[[str | None], Recipe],
    tasks: Sequence[str],
    machine: Machine,
    mfu: float,
    absent: AbsentData,
    measure_seconds: float,
) -> Forecast:
    recipe = recipe_of(None)
    data = sizes_of(recipe.dataset, recipe.data.model_dump(), "data", absent)
    result = Forecast(recipe.method, recipe.encoder, recipe.name, machine, mfu, measure_seconds > 0)
    result.data[recipe.dataset] = data
    planned: list[tuple[Recipe, Task, DataSizes]] = []
    for name in tasks:
        of_task = recipe_of(name)
        task = of_task.task(name)
        dataset, options = of_task.task_data(task)
        result.data[dataset] = sizes_of(dataset, options, "task.data", absent)
        planned.append((of_task, task, result.data[dataset]))
    absent.require_use(result.data)

    def add(step: StepOfStage, images: int, end: int | None = None) -> None:
        stage = _training(step, images, machine, end)
        result.stages.append(_timed(stage, step, machine, mfu, measure_seconds))

    if recipe.method_class().pretrains:
        images = pretraining_images(data, recipe.pretrain)
        before, notes = stages_before(recipe, data.channels)
        result.notes.extend(notes)
        for step in before:
            add(step, images)
        step = pretraining_step(recipe, data.channels)
        add(step, images, recipe.pretrain.end)
    for of_task, task, sizes in planned:
        known = task_step(of_task, task, data.channels, sizes)
        if known is not None:
            add(known, sizes.train)
        else:
            stage = _untrained(of_task, task, data.channels, sizes, machine)
            result.stages.append(stage if measure_seconds else _by_peak(stage, machine, mfu))
    return result


def _training(step: StepOfStage, images: int, machine: Machine, end: int | None) -> Stage:
    config, notes = step.config, []
    config.require_processes(machine.count, step.options)
    config.require_images(images, step.options)
    schedule = Schedule(config, steps_per_epoch=images // config.batch_size)
    steps = schedule.steps if end is None else end * (schedule.steps_per_epoch if config.unit == "epoch" else 1)
    target, share = machine.target(config), config.batch_size // machine.count
    memory = largest = disk = None
    with torch.device("meta"):
        planned = step.build()
    notes += [planned.note] if planned.note else []
    trained, frozen = _parameters(planned.model)
    try:
        with traced(step.build, target) as trace:
            memory = trace(config.micro_batch(machine.count), config.accumulate > 1)
            disk = _STATES_KEPT * memory.saved
            largest = largest_that_fits(trace, share, min(2, share), machine.usable, memory)
        flops: float | None = count_flops(step.build)
    except InputError:
        raise
    except Exception as error:  # a plugin's step may need values
        notes.append(f"{step.name}: its step cannot be traced without values ({short_text(error)})")
        flops = None
    return Stage(
        step.name,
        trained,
        frozen,
        flops=flops,
        images=steps * config.batch_size,
        batch=config.batch_size,
        accumulate=config.accumulate,
        precision=target.precision,
        options=step.options,
        memory=memory,
        largest=largest,
        has_checkpointing=config.grad_checkpointing,
        disk=disk,
        notes=notes,
    )


def _untrained(recipe: Recipe, task: Task, channels: int, sizes: DataSizes, machine: Machine) -> Stage:
    """A task that only looks at features, or one whose step is not known."""
    with torch.device("meta"):
        encoder = encoder_of(recipe, channels)
    _, frozen = _parameters(encoder.requires_grad_(False))
    if not is_forward_only(task):
        return Stage(
            task.name, 0, frozen, notes=[f"{task.name}: memory and time are not known: the task has no planned_step"]
        )
    forward = count_forward(lambda: encoder_of(recipe, channels), FORWARD_BATCH, machine.on_cuda)
    images = sizes.train + sizes.test
    return Stage(
        task.name,
        0,
        frozen,
        flops=forward.flops,
        images=images,
        batch=FORWARD_BATCH,
        memory=forward.memory,
        disk=images * forward.width * 4,
        notes=[
            f"{task.name}: one forward pass over each image, and features of one layer; no classifier, no other views"
        ],
    )


def _timed(stage: Stage, step: StepOfStage, machine: Machine, mfu: float, measure_seconds: float) -> Stage:
    if not measure_seconds:
        return _by_peak(stage, machine, mfu)
    rate = _measure(step.build, step.config, measure_seconds)
    return replace(stage, seconds=(stage.images or 0) / rate)


def _by_peak(stage: Stage, machine: Machine, mfu: float) -> Stage:
    rate = machine.card.rate(stage.precision) if machine.card else None
    if rate is None or stage.flops is None or stage.images is None:
        return stage
    return replace(stage, seconds=stage.flops * stage.images / (rate * mfu * machine.count))


def _measure(build: Callable[[], PlannedStep], config: TrainConfig, seconds: float) -> float:
    """Images per second of steps on blank images, on this machine's device, after one step to warm up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    planned, images = build(), config.micro_batch(1)
    step, batch = BareStep(planned.model, config, device), planned.batch(images)
    wait = torch.cuda.synchronize if device.type == "cuda" else _do_nothing
    step(batch)
    wait()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        step(batch)
        count += 1
    wait()
    return count * images / (time.perf_counter() - start)


def _do_nothing() -> None:
    pass


def _parameters(model: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, and how many are not."""
    counts = [0, 0]
    for parameter in model.parameters():
        counts[not parameter.requires_grad] += parameter.numel()
    return counts[0], counts[1]
