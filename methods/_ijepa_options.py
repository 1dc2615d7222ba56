"""Options of I-JEPA."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench.api import Config, Depth


class IJEPAConfig(Config):
    """The defaults are those of the official ViT-H/14."""

    targets: int = Field(4, ge=1)
    """Blocks to predict per image."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Least and greatest area of a target block, as a share of the grid."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Least and greatest height / width of a target block."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Least and greatest area of the context block, before the targets are taken out of it."""
    min_context: int = Field(11, ge=1)
    """Least number of context patches."""
    allow_overlap: bool = False
    """The context keeps the patches that it shares with targets."""
    predictor_dim: int = Field(384, ge=4)
    predictor_depth: Depth = Field(12, ge=1)
    predictor_heads: int = Field(16, ge=1)
    predictor_mlp_ratio: float = Field(4.0, gt=0)
    momentum_start: float = Field(0.996, ge=0, le=1)
    """What the teacher keeps of itself at the first step."""
    momentum_end: float = Field(1.0, ge=0, le=1)
    """What it would keep after the last step; the momentum goes there in a straight line."""
    export: Literal["student", "teacher"] = "teacher"
    """Whose encoder the tasks get."""

    @model_validator(mode="after")
    def _rising(self) -> IJEPAConfig:
        if self.momentum_start > self.momentum_end:
            raise ValueError(f"momentum_start {self.momentum_start:g} is above momentum_end {self.momentum_end:g}")
        return self
