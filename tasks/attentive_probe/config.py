"""Options of the attentive probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mimbench.api import ProbeAugmentation, ProbeTraining, TaskConfig
from mimbench_tasks.attentive_probe.heads import LINEAR, HeadName


class AttentiveTraining(ProbeTraining):
    """The training budget. The defaults suit a few thousand images; protocols set their own."""

    epochs: int | None = Field(6, ge=1)
    base_lr: float = Field(1e-3, gt=0)
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    weight_decay: float = Field(0.0, ge=0)


class AttentiveAugmentation(ProbeAugmentation):
    """How training images are augmented. Size and normalisation come from the recipe's [input]."""

    auto_augment: str | None = Field(None, min_length=1)
    """AutoAugment or RandAugment in timm's notation, such as "original"; images are then augmented one by one."""
    erase_prob: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle of an image is erased with noise."""


class AttentiveProbeConfig(TaskConfig):
    """Which heads read which tokens, and how they are trained.

    All heads, with all rates and weight decays, are trained in one pass over the images.
    """

    layer: int = -1
    """Depth of the tokens; -1 is the last layer, after the final norm."""
    tokens: Literal["patches", "patches+token"] = "patches"
    """What heads attend to: the patches, or the class token and the patches."""
    heads: tuple[HeadName, ...] = Field(("ep", "abmilp", "capi", "cae", "vjepa", "mean"), min_length=1)
    """"mean" and "token" are linear heads for comparison. `top1` is never theirs."""
    queries: int = Field(16, ge=1)
    """Queries of the head "ep". They divide the channels of the tokens."""
    batch_norm: bool | None = None
    """Whether a batch normalisation without affine parameters comes before each linear layer; absent: as in the head's
    official code, which has none for capi and vjepa."""
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    """Base learning rates to choose from, scaled by the batch size as train.base_lr is; (): train.base_lr alone."""
    weight_decays: tuple[float, ...] = ()
    """Constant weight decays to choose from; (): train.weight_decay alone."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Fraction of the training images on which rates, weight decays and the best head are chosen. It is used only if
    there is something to choose, and its images are not trained on."""
    train: AttentiveTraining = AttentiveTraining()
    augmentation: AttentiveAugmentation = AttentiveAugmentation()

    @field_validator("heads", "rates", "weight_decays")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values):
            raise ValueError("it names one value twice")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> AttentiveProbeConfig:
        if not self.attentive:
            raise ValueError(f'heads {", ".join(self.heads)}: none of them attends; add one, such as "ep"')
        if any(rate <= 0 for rate in self.rates):
            raise ValueError("rates must be above 0")
        if any(decay < 0 for decay in self.weight_decays):
            raise ValueError("weight_decays must be 0 or above")
        if self.weight_decays and self.train.final_weight_decay is not None:
            raise ValueError("weight_decays are constant: leave train.final_weight_decay out")
        return self

    @property
    def attentive(self) -> tuple[HeadName, ...]:
        """The heads that attend, among which the best is chosen."""
        return tuple(name for name in self.heads if name not in LINEAR)
