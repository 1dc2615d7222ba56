"""Batches, steps and reports of a training, and the options of one part of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class PartOptions:
    """Options of the optimizer for some of a model's parameters, such as those of an online tokenizer.

    The parameters are named by the beginning of their names, or by a shell pattern if it has a *, such as
    "*norm*.weight". A parameter has the options of the first that matches.

    AdamW updates each parameter by itself, so a part with its options is trained as by a second optimizer.
    """

    lr_scale: float = 1.0
    """Multiplies the learning rate of each step."""
    weight_decay: float | None = None
    """Constant weight decay; None: that of the training."""
    betas: tuple[float, float] | None = None
    """None: those of the training."""


@dataclass(frozen=True)
class Batch:
    """Input of one training step, on the training device.

    Attributes:
        views: float [B, C, S, S] each, or clips [B, C, T, S, S], normalised, as `Method.views` asks for them; usually
            one. S may differ.
        labels: int64 [B]; None for methods without supervision.
        progress: share of the training before this step, in [0, 1).
        epoch: whole epochs before this step.
    """

    views: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None = None
    progress: float = 0.0
    epoch: int = 0

    @property
    def images(self) -> torch.Tensor:
        """The first view."""
        return self.views[0]


@dataclass(frozen=True)
class StepOutput:
    """Output of one training step.

    Attributes:
        loss: scalar to minimise.
        logs: further detached scalars, to log.
    """

    loss: torch.Tensor
    logs: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Trainable(Protocol):
    """An nn.Module that the engine can train: it has `training_step`.

    Optional:
        before_epoch(epoch): called before each epoch, counted from 0, and when a training resumes within one.
        before_step(progress, epoch): called before each micro-batch, with the share of the training before its step,
            and the whole epochs before it.
        before_update(progress): called before each optimizer step, when the gradients are there and clipped.
        after_step(progress): called after each optimizer step, with the share of the training that is done.
        no_weight_decay(): names or patterns of parameters without weight decay.
        extra_weight_decay(): names or patterns of parameters of one dimension that are decayed all the same.
        layer_of(name) and num_layers: for layer decay.
        optimizer_parts(): options of the optimizer by the beginning of parameters' names, or by patterns with a *.
        trained_encoder: the encoder, if it must receive a gradient at the first step.
        shares_batch: whether each process takes its rows of what a step draws for the images of all processes
            (`draw_rows`), and its losses are means over as many images on each. The processes have one seed then,
            and a step on several of them is that of one process.
    """

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """Loss of one batch.

        Args:
            batch: as the loader yields it, on the CPU.
            generator: on the training device, freshly seeded for this step.
        """


@dataclass(frozen=True)
class FitReport:
    """Loss and cost of a training."""

    loss: list[float]
    """Mean loss of each epoch. A training that ends within an epoch has the mean over its steps as the last value."""
    seconds: float
    images_seen: int
    steps: int
    peak_memory: int | None
    """Bytes on the device; None if the device does not report it."""
    precision: str
    logs: dict[str, list[float]] = field(default_factory=dict)
    """Mean of each log of `StepOutput` in each epoch, by name; the last one as in `loss`."""
    compiled: str = ""
    """Which blocks ran compiled, and the form of their attention; "" if all ran as they are."""
    monitored: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(epochs done, value) of each measurement of a monitor, by its name."""
    monitor_seconds: float = 0.0
    """What monitors took; `seconds` is without it."""
