"""A linear probe that is trained on augmented images through a frozen encoder, as MAE and MoCo v3 do."""

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
    Config,
    DataSizes,
    Encoder,
    FitReport,
    ImageSplit,
    InputConfig,
    InputError,
    PlannedStep,
    StepOutput,
    TaskContext,
    TrainConfig,
    cosmetic,
)
from mimbench.contract.input import image_shape
from mimbench.data import DeviceTransform, training_loader
from mimbench.distributed import get_rank, get_world_size
from mimbench.optim import Schedule

FeatureFunction = Callable[[Tensor, torch.Generator], Tensor]
"""(uint8 images [B, C, h, w], generator of the augmentation) -> features [B, D]."""
ROWS = 4096
"""Feature vectors that are scored at once."""


class ProbeTraining(TrainConfig):
    """The training budget of the probe. The defaults suit a few thousand images; protocols set their own."""

    epochs: int | None = Field(30, ge=1)
    batch_size: int = Field(64, ge=1)
    base_lr: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "sgd", "lars"] = "lars"
    weight_decay: float = Field(0.0, ge=0)
    checkpoint_every: int | None = cosmetic(10, ge=1)


class ProbeAugmentation(Config):
    """How training images are augmented. Size and normalisation come from the recipe's [input]."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(0.5, ge=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def applied(self, input_config: InputConfig) -> InputConfig:
        """`input_config` with this augmentation in place of pretraining's."""
        replaced = self.model_dump(include=set(ProbeAugmentation.model_fields))
        return InputConfig(**{**input_config.model_dump(), "crop": "resized", "color_jitter": 0.0, **replaced})


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
    """A Trainable that holds the head only.

    `features_of` calls the frozen encoder. The encoder is no submodule, so it is not trained, moved or saved.
    """

    shares_batch = True

    def __init__(self, features_of: FeatureFunction, head: nn.Module) -> None:
        super().__init__()
        self.features_of, self.head = features_of, head

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = (part.to(generator.device, non_blocking=True) for part in batch)
        logits = self.head(self.features_of(images, generator).float())
        return StepOutput(F.cross_entropy(logits.float(), labels))


def check_probe_training(config: TrainConfig, images: int) -> None:
    """Raise InputError if the budget does not work for this number of training images."""
    config.require_images(images, "task.train")
    if config.layer_decay is not None:
        raise InputError(
            f"task.train.layer_decay {config.layer_decay:g}: the encoder of a probe is frozen; leave it out"
        )
    if config.micro_batch(1) < 2:
        raise InputError("task.train.batch_size: batch normalisation needs two or more images in each micro-batch")
    Schedule(config, steps_per_epoch=images // config.batch_size)


def train_probe(
    encoder: Encoder,
    split: ImageSplit,
    context: TaskContext,
    config: TrainConfig,
    augmentation: ProbeAugmentation,
    *,
    layer: int,
    pooling: str,
    init_std: float,
) -> TrainedProbe:
    """Train BatchNorm1d (without affine parameters) and a linear layer on frozen features of augmented images.

    As the linear probes of MAE (arXiv:2111.06377) and MoCo v3 (arXiv:2104.02057) are trained. The encoder's weights
    do not change.

    Args:
        split: labelled training images.
        config: the budget; see `check_probe_training`.
        augmentation: of the training images, instead of pretraining's.
        layer: depth of the features; -1 is the last layer.
        pooling: "mean" or "token".
        init_std: standard deviation of the linear layer's initial weights.
    """
    rank, world = get_rank(), get_world_size()
    input_config = augmentation.applied(context.input)
    features_of = _feature_function(encoder, split, input_config, context.device, layer, pooling)
    loader = training_loader(
        split,
        input_config,
        batch_size=config.micro_batch(world),
        seed=context.seed,
        workers=config.workers,
        device=context.device,
        rank=rank,
        world_size=world,
    )
    dim = _feature_dim(encoder, context, layer, pooling)
    probe = _Probe(features_of, _build_head(dim, len(split.classes), init_std, context.seed))
    report = context.fit(probe, loader, config, label="linear-probe", images_per_epoch=len(split))
    return TrainedProbe(probe.head.to(context.device).eval(), context.device, report, dim)


class _PlannedProbe(nn.Module):
    """A probe as `_Probe` trains it, which holds its encoder, so that this is counted too."""

    def __init__(self, encoder: Encoder, transform: DeviceTransform, layer: int, pooling: str, classes: int) -> None:
        super().__init__()
        self.encoder, self.transform = encoder.requires_grad_(False), transform
        self.layer, self.pooling = layer, pooling
        dim = encoder.eval().features(torch.zeros(1, *encoder.input_shape), layer).pool(pooling).shape[1]
        self.head = _build_head(dim, classes, init_std=0.01, seed=0)

    def train(self, mode: bool = True) -> _PlannedProbe:
        super().train(mode)
        self.encoder.eval()
        return self

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        with torch.no_grad():
            features = self.encoder.features(self.transform(batch[0], generator), self.layer).pool(self.pooling)
        return StepOutput(F.cross_entropy(self.head(features.float()).float(), batch[1]))


def planned_probe(
    encoder: Encoder, data: DataSizes, images: InputConfig, config: TrainConfig, *, layer: int, pooling: str
) -> PlannedStep:
    """The step of `train_probe` for `mimbench plan`, on images that the loader has cropped."""
    transform = DeviceTransform(images, encoder.in_channels, train=True, batched=False)
    probe = _PlannedProbe(encoder, transform, layer, pooling, data.classes)
    shape = image_shape(data.channels, images.image_size, images.frames)

    def batch(count: int) -> Any:
        return torch.zeros(count, *shape, dtype=torch.uint8), torch.zeros(count, dtype=torch.long)

    return PlannedStep(probe, batch, config)


def _feature_function(
    encoder: Encoder, split: ImageSplit, input_config: InputConfig, device: torch.device, layer: int, pooling: str
) -> FeatureFunction:
    # Images of an ArraySplit arrive whole and are cropped on the device; others arrive cropped.
    transform = DeviceTransform(input_config, encoder.in_channels, train=True, batched=split.is_in_memory)
    transform.to(device)
    encoder.to(device).eval()

    @torch.no_grad()
    def features_of(images: Tensor, generator: torch.Generator) -> Tensor:
        return encoder.features(transform(images, generator), layer).pool(pooling)

    return features_of


@torch.no_grad()
def _feature_dim(encoder: Encoder, context: TaskContext, layer: int, pooling: str) -> int:
    shape = image_shape(encoder.in_channels, context.input.image_size, context.input.frames)
    image = torch.zeros(1, *shape, device=context.device)
    return encoder.features(image, layer).pool(pooling).shape[1]


def _build_head(dim: int, classes: int, init_std: float, seed: int) -> nn.Sequential:
    linear = nn.utils.skip_init(nn.Linear, dim, classes)
    nn.init.trunc_normal_(linear.weight, std=init_std, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), linear)
