"""A linear layer trained on augmented images through a frozen encoder, as MAE's and MoCo v3's probes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.contract import (
    ArraySplit,
    Config,
    Encoder,
    FitReport,
    ImageSplit,
    InputConfig,
    InputError,
    StepOutput,
    TaskContext,
    TrainConfig,
    cosmetic,
)
from mimbench.data import DeviceTransform, place, training_loader
from mimbench.optim import Schedule

See = Callable[[Tensor, torch.Generator], Tensor]
ROWS = 4096
"""Feature vectors that are scored at once."""


class ProbeTraining(TrainConfig):
    """A budget for small sets; a protocol sets its own."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(64, ge=1)
    base_lr: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "sgd", "lars"] = "lars"
    weight_decay: float = Field(0.0, ge=0)
    checkpoint_every: int = cosmetic(10, ge=1)


class Augmentation(Config):
    """How training images are augmented; [input] says the rest (size, normalisation)."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(0.5, ge=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def applied(self, input: InputConfig) -> InputConfig:
        """`input` with this augmentation in place of pretraining's."""
        return InputConfig(**{**input.model_dump(), "color_jitter": 0.0, **self.model_dump()})


@dataclass(frozen=True)
class TrainedProbe:
    """A trained head, in evaluation mode."""

    head: nn.Module
    device: torch.device
    report: FitReport
    dim: int

    @torch.inference_mode()
    def scores(self, features: Tensor) -> np.ndarray:
        """Logits [N, classes] of features [N, D]."""
        return torch.cat([self.head(rows.to(self.device)).float().cpu() for rows in features.split(ROWS)]).numpy()


class _Probe(nn.Module):
    """A Trainable: the head alone. `see` is the frozen encoder, which is no part of what is trained, moved or saved."""

    def __init__(self, see: See, head: nn.Module) -> None:
        super().__init__()
        self.see, self.head = see, head

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        return StepOutput(F.cross_entropy(self.head(self.see(images, generator).float()).float(), labels))


def check_training(config: TrainConfig, images: int) -> None:
    """Raise InputError for a budget that cannot be spent on this many training images."""
    config.require_images(images, "task.train")
    if config.layer_decay is not None:
        raise InputError(
            f"task.train.layer_decay {config.layer_decay:g}: the encoder of a probe is frozen; leave it out"
        )
    if config.micro_batch(1) < 2:
        raise InputError("task.train.batch_size: batch normalisation needs two or more images in each micro-batch")
    Schedule(config, steps_per_epoch=1)


def train_probe(
    encoder: Encoder,
    split: ImageSplit,
    context: TaskContext,
    config: TrainConfig,
    augmentation: Augmentation,
    *,
    layer: int,
    pooling: str,
    init_std: float,
) -> TrainedProbe:
    """Train BatchNorm1d (without affine part) and a linear layer on `split`; the encoder's weights stay as they are."""
    rank, world = place()
    input = augmentation.applied(context.input)
    see = _frozen(encoder, split, input, context.device, layer, pooling)
    loader = training_loader(
        split,
        input,
        batch_size=config.micro_batch(world),
        seed=context.seed,
        workers=config.workers,
        device=context.device,
        rank=rank,
        world_size=world,
    )
    dim = _dim(encoder, context, layer, pooling)
    probe = _Probe(see, _head(dim, len(split.classes), init_std, context.seed))
    report = context.fit(probe, loader, config, label="linear-probe", images_per_epoch=len(split))
    return TrainedProbe(probe.head.to(context.device).eval(), context.device, report, dim)


def _frozen(
    encoder: Encoder, split: ImageSplit, input: InputConfig, device: torch.device, layer: int, pooling: str
) -> See:
    transform = DeviceTransform(input, encoder.in_channels, train=True, batched=isinstance(split, ArraySplit))
    transform.to(device)
    encoder.to(device).eval()

    @torch.no_grad()
    def see(images: Tensor, generator: torch.Generator) -> Tensor:
        return encoder.features(transform(images, generator), layer).pool(pooling)

    return see


@torch.no_grad()
def _dim(encoder: Encoder, context: TaskContext, layer: int, pooling: str) -> int:
    size = context.input.image_size
    return (
        encoder.features(torch.zeros(1, encoder.in_channels, size, size, device=context.device), layer)
        .pool(pooling)
        .shape[1]
    )


def _head(dim: int, classes: int, init_std: float, seed: int) -> nn.Sequential:
    linear = nn.utils.skip_init(nn.Linear, dim, classes)
    nn.init.trunc_normal_(linear.weight, std=init_std, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), linear)
