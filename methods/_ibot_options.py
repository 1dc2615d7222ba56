"""Options of iBOT, and the views that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimbench.api import Config, Encoder, Grid, InputConfig, InputError, ProjectionHead, View, mixed_ratio_mask

Range = tuple[float, float]


class IBOTConfig(Config):
    """The defaults are those of the official ViT-S/16."""

    global_scale: Range = (0.25, 1.0)
    """Least and greatest area of the two global crops, as a share of the image."""
    local_crops: int = Field(10, ge=0)
    local_size: int = Field(96, ge=4)
    """Side of the local crops, px."""
    local_scale: Range = (0.05, 0.25)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Strengths of brightness, contrast, saturation and hue."""
    jitter_probability: float = Field(0.8, ge=0, le=1)
    grayscale: float = Field(0.2, ge=0, le=1)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability for the first view, the second one, and local crops."""
    solarize: float = Field(0.2, ge=0, le=1)
    """Probability for the second view."""
    mask: Literal["block", "random"] = "block"
    mask_ratios: tuple[float, ...] = (0.0, 0.3)
    """Each view of an image draws one of them; 0 masks nothing."""
    ratio_spread: tuple[float, ...] = (0.0, 0.2)
    """How far from each of `mask_ratios` the ratio is drawn, to both sides."""
    out_dim: int = Field(8192, ge=2)
    hidden_dim: int = Field(2048, ge=1)
    bottleneck_dim: int = Field(256, ge=1)
    head_layers: int = Field(3, ge=1)
    fixed_gain: bool = False
    """Rows of the head's last layer keep their length ("norm_last_layer")."""
    student_temperature: float = Field(0.1, gt=0)
    temperature: Range = (0.04, 0.07)
    """Of the teacher's class tokens: in the first epoch, and after `temperature_epochs`."""
    patch_temperature: Range = (0.04, 0.07)
    """Of its patches."""
    temperature_epochs: int = Field(30, ge=0)
    """Epochs in which these rise, once per epoch; the last of them has the final value."""
    class_weight: float = Field(1.0, ge=0)
    """Of the loss of class tokens."""
    patch_weight: float = Field(1.0, ge=0)
    """Of the loss of masked patches."""
    centre_momentum: float = Field(0.9, ge=0, le=1)
    """What the centres of the teacher's logits keep of themselves at each step."""
    freeze_epochs: int = Field(1, ge=0)
    """Epochs in which the head's last layer stays as it is."""
    momentum_start: float = Field(0.996, ge=0, le=1)
    """What the teacher keeps of itself at the first step; it rises to 1 along half a cosine."""
    export: Literal["student", "teacher"] = "teacher"
    """Whose encoder the tasks get."""

    @model_validator(mode="after")
    def _consistent(self) -> IBOTConfig:
        for name in ("temperature", "patch_temperature"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.class_weight and not self.patch_weight:
            raise ValueError("class_weight and patch_weight are both 0: nothing is learned")
        return self

    def check_local_size(self, patch_size: int) -> None:
        """Raises InputError: a patch of `patch_size` px cuts the local crops."""
        if self.local_crops and self.local_size % patch_size:
            raise InputError(f"method.local_size {self.local_size} px is not a multiple of the patch, {patch_size} px")

    def build_head(self, encoder: Encoder) -> ProjectionHead:
        sizes = self.model_dump(include={"hidden_dim", "bottleneck_dim", "fixed_gain"})
        return ProjectionHead(encoder.out_dim, self.out_dim, layers=self.head_layers, **sizes)

    def draw_mask(self, batch: int, grid: Grid, generator: torch.Generator) -> Tensor:
        """Bool [batch, Gh, Gw]; each draws its own mask ratio."""
        return mixed_ratio_mask(batch, grid, self.mask_ratios, self.ratio_spread, generator, kind=self.mask)

    def temperature_at(self, epoch: int, ends: Range) -> float:
        """From the first end to the second in equal steps, one per epoch, over `temperature_epochs`."""
        if epoch >= self.temperature_epochs:
            return ends[1]
        return ends[0] + (ends[1] - ends[0]) * epoch / max(self.temperature_epochs - 1, 1)


def augmented_views(config: IBOTConfig, input: InputConfig) -> Sequence[InputConfig]:
    """Two global views and the local ones: crops and flips as [input] has them, then colours, blur, solarisation."""
    colours = config.model_dump(include={"jitter", "jitter_probability", "grayscale"})
    first, second, local = config.blur
    small = View.from_input(input, **colours, image_size=config.local_size, crop_scale=config.local_scale, blur=local)
    return (
        View.from_input(input, **colours, crop_scale=config.global_scale, blur=first),
        View.from_input(input, **colours, crop_scale=config.global_scale, blur=second, solarize=config.solarize),
        *[small] * config.local_crops,
    )
