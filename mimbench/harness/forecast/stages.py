"""The training steps of a recipe's stages: tokenizers, pretraining and tasks, each built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.contract import DataSizes, Encoder, FitReport, InputConfig, PlannedStep, Stage, Task, TrainConfig
from mimbench.contract.input import image_shape
from mimbench.engine.pretrain import TrainableMethod
from mimbench.errors import NotSupported
from mimbench.harness.planning.build import build_method
from mimbench.recipe.resolve import Recipe


@dataclass(frozen=True)
class StepOfStage:
    """A stage that trains."""

    name: str
    build: Callable[[], PlannedStep]
    config: TrainConfig
    options: str
    """Path of the table that `config` comes from."""


def pretraining_step(recipe: Recipe, channels: int) -> StepOfStage:
    def build() -> PlannedStep:
        method = build_method(recipe, 0, channels)
        if recipe.pretrain.grad_checkpointing:
            method.encoder.set_grad_checkpointing()
        return _planned(method, recipe.views(), channels, recipe.pretrain)

    return StepOfStage("pretrain", build, recipe.pretrain, "pretrain")


def stages_before(recipe: Recipe, channels: int) -> tuple[list[StepOfStage], list[str]]:
    """What a method fits before its training, and lines about what cannot be planned.

    `Method.prepare` runs with weights on the meta device and with a stage that trains nothing.
    """
    with torch.device("meta"):
        method = build_method(recipe, 0, channels)
        stage = _NotedFits(recipe.input)
        problem = ""
        try:
            method.prepare(stage)
        except NotSupported as error:
            problem = str(error)
        except Exception as error:  # a plugin's stage may compute with the weights that it fitted
            problem = f"{type(error).__name__}"
    steps = [_step_of_fit(recipe, channels, number) for number in range(len(stage.fits))]
    notes = [f"{recipe.method}: what it fits before its training is not planned whole ({problem})"] if problem else []
    return [step(stage.fits) for step in steps], notes


def _step_of_fit(recipe: Recipe, channels: int, number: int) -> Callable[[list[_Fit]], StepOfStage]:
    def build() -> PlannedStep:
        stage = _NotedFits(recipe.input)
        try:
            build_method(recipe, 0, channels).prepare(stage)
        except Exception:  # after the fit that is asked for, or `stages_before` would not have noted it
            if len(stage.fits) <= number:
                raise
        fit = stage.fits[number]
        return _planned(fit.model, (recipe.input,), channels, fit.config)

    return lambda fits: StepOfStage(fits[number].label, build, fits[number].config, fits[number].options)


def task_step(recipe: Recipe, task: Task, channels: int, data: DataSizes) -> StepOfStage | None:
    """The step of a task that trains; None if it trains nothing, or its step is not known."""

    def build() -> PlannedStep:
        planned = task.planned_step(encoder_of(recipe, channels), data, recipe.input)
        assert planned is not None
        return planned

    with torch.device("meta"):
        planned = task.planned_step(encoder_of(recipe, channels), data, recipe.input)
    return StepOfStage(task.name, build, planned.config, "task.train") if planned else None


def encoder_of(recipe: Recipe, channels: int) -> Encoder:
    """What tasks get of a pretraining."""
    return build_method(recipe, 0, channels).exported_encoder()


class Forward(nn.Module):
    """An encoder that is not trained, as a step of one forward pass."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.features(images, -1).patches


def _planned(model: nn.Module, views: Any, channels: int, config: TrainConfig) -> PlannedStep:
    """The step of a method, or of what it fits, on images that the loader has cropped."""
    trainable = TrainableMethod(model, views, channels=channels, batched=False)

    def batch(images: int) -> Any:
        shapes = [image_shape(channels, view.image_size, view.frames) for view in views]
        cropped = [torch.zeros(images, *shape, dtype=torch.uint8) for shape in shapes]
        return cropped, torch.zeros(images, dtype=torch.long)

    return PlannedStep(trainable, batch, config)


@dataclass(frozen=True)
class _Fit:
    model: nn.Module
    config: TrainConfig
    label: str
    options: str


class _NotedFits(Stage):
    """A stage that notes what would be trained, and trains nothing."""

    def __init__(self, images: InputConfig) -> None:
        self.seed, self.device, self.input, self.classes = 0, torch.device("meta"), images, ()
        self.fits: list[_Fit] = []

    def images(self) -> Iterator[Tensor]:
        raise NotSupported("it computes with the images themselves, on the CPU")

    def fit(self, model: nn.Module, config: TrainConfig, *, label: str, options: str) -> FitReport:
        self.fits.append(_Fit(model, config, label, options))
        return FitReport([], 0.0, 0, 0, None, "fp32")

    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return dict(make())

    def say(self, text: str) -> None:
        """Nothing is fitted, so there is nothing to say."""


def is_forward_only(task: Task) -> bool:
    """Whether a task only looks at what the encoder outputs."""
    return not (task.trains_encoder or task.needs_reconstruction)
