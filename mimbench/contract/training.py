"""How something is trained: optimizer, schedule, budget. Pretraining and every trained task share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, model_validator

from mimbench.contract.config import Config, added, cosmetic
from mimbench.errors import InputError


class ScheduleConfig(Config):
    """The learning rate over optimizer steps.

    `convention` chooses whose arithmetic is followed, quirks included: "plain" is warmup then a full
    cosine (or straight line) over what is left; "simmim", "mae" and "beit" are the values that those
    official scripts use. Rates are given before scaling; the divisor of the recipe scales `warmup_lr` and
    `min_lr` too where the convention does so (SimMIM).
    """

    kind: Literal["cosine", "linear", "multistep", "constant"] = "cosine"
    convention: Literal["plain", "simmim", "mae", "beit"] = "plain"
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_lr: float = Field(0.0, ge=0)
    min_lr: float = Field(0.0, ge=0)
    milestones: tuple[float, ...] = ()
    """Epochs after which the rate is multiplied by `gamma` (multistep)."""
    gamma: float = Field(0.1, gt=0)


class TrainConfig(Config):
    """A training budget and its optimizer. Unit of lengths: epochs; of rates: per optimizer step."""

    epochs: int = Field(ge=1, le=10_000_000)
    batch_size: int = Field(ge=1)
    """Images per optimizer step, over all processes and accumulated micro-batches together."""
    base_lr: float = Field(gt=0)
    lr_divisor: int | None = Field(None, ge=1)
    """lr = base_lr x batch_size / lr_divisor; absent: base_lr is absolute (SimMIM 512, MAE 256, BEiT none)."""
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """`momentum` is for sgd and lars, `betas` and `eps` for adamw."""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    layer_decay: float | None = Field(None, gt=0, le=1)
    clip_grad: float | None = Field(None, gt=0)
    """Largest L2 norm of the whole gradient; absent: no clipping."""
    schedule: ScheduleConfig = ScheduleConfig()
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimizer step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA devices that have it, fp32 elsewhere."""
    compile: bool = cosmetic(False)
    channels_last: bool = cosmetic(False)
    grad_checkpointing: bool = cosmetic(False)
    workers: int = cosmetic(4, ge=0, le=1024)
    """DataLoader workers; in-memory sets never use any."""
    checkpoint_every: int = cosmetic(10, ge=1)
    """Epochs between checkpoints that an interrupted run resumes from."""
    tensorboard: bool = cosmetic(False)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {self.betas}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs > 0:
            raise ValueError(f"warmup_epochs {self.schedule.warmup_epochs:g} leaves nothing of {self.epochs} epochs")
        return self

    @property
    def lr_scale(self) -> float:
        """What the batch multiplies a rate of the recipe by."""
        return 1.0 if self.lr_divisor is None else self.batch_size / self.lr_divisor

    @property
    def lr(self) -> float:
        """The effective peak learning rate."""
        return self.base_lr * self.lr_scale

    def micro_batch(self, processes: int) -> int:
        """Images that each of so many processes takes at a time."""
        return self.batch_size // self.accumulate // processes

    def require_processes(self, processes: int, where: str) -> None:
        """Raise InputError if so many processes cannot share a batch equally; `where` is this table, "pretrain"."""
        if self.batch_size % (self.accumulate * processes):
            parts = f"{processes} processes" + (f" x {self.accumulate} micro-batches" if self.accumulate > 1 else "")
            raise InputError(
                f"{where}.batch_size {self.batch_size} cannot be shared equally by {parts}; choose a multiple of "
                f"{self.accumulate * processes} with --set {where}.batch_size=N"
            )

    def require_images(self, images: int, where: str) -> None:
        """Raise InputError where so many training images do not fill a batch; `where` is this table, "pretrain"."""
        if self.batch_size > images:
            raise InputError(
                f"{where}.batch_size {self.batch_size} is more than the {images} training images; "
                f"lower it with --set {where}.batch_size=N"
            )

    def lr_arithmetic(self) -> str:
        """The effective rate with its arithmetic, as a person would check it."""
        if self.lr_divisor is None:
            return f"lr = base_lr = {self.base_lr:g} (absolute)"
        return (
            f"lr = base_lr x batch_size / {self.lr_divisor} = "
            f"{self.base_lr:g} x {self.batch_size} / {self.lr_divisor} = {self.lr:g}"
        )


class PretrainConfig(TrainConfig):
    """The budget of a pretraining, and after how much of it its weights are taken."""

    at_epoch: int | None = added(None, ge=0)
    """Take the weights as they are after so many epochs of the schedule (0: untrained); absent: after all of them."""

    @model_validator(mode="before")
    @classmethod
    def _end_is_the_end(cls, values: Any) -> Any:
        """The last epoch named is the same as none named."""
        if isinstance(values, Mapping) and values.get("at_epoch") == values.get("epochs"):
            return {key: value for key, value in values.items() if key != "at_epoch"}
        return values

    @model_validator(mode="after")
    def _within(self) -> PretrainConfig:
        if self.at_epoch is not None and self.at_epoch > self.epochs:
            raise ValueError(f"at_epoch {self.at_epoch} lies beyond the {self.epochs} epochs")
        return self

    @property
    def last_epoch(self) -> int:
        """Epochs that are trained."""
        return self.epochs if self.at_epoch is None else self.at_epoch


@dataclass(frozen=True)
class Batch:
    """What one training step sees, on the training device.

    images: float [B, C, H, W], normalised. labels: int64 [B]; methods that declare no supervision
    never receive it.
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class StepOutput:
    """One training step: `loss` is what is optimised, `logs` are detached scalars to show."""

    loss: torch.Tensor
    logs: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Trainable(Protocol):
    """What the engine can train: any module with this one method, besides nn.Module's own.

    It may also have `after_step(progress)`, called after each optimizer step; `no_weight_decay()`, names or
    patterns that are not decayed; and `layer_of(name)` with `num_layers`, for layer decay.
    """

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """Loss of one batch, still on the host as the loader gave it; `generator` is on the device."""


@dataclass(frozen=True)
class FitReport:
    """What a training cost and how it went."""

    loss: list[float]
    """Mean loss of each epoch."""
    seconds: float
    images_seen: int
    steps: int
    peak_memory: int | None
    """Bytes on the device; None where the device does not tell."""
    precision: str
