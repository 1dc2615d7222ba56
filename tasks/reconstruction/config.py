"""Options of the reconstruction task."""

from __future__ import annotations

from pydantic import Field, field_validator

from mimbench.api import TaskConfig, cosmetic
from mimbench_tasks.reconstruction.judge import JudgeConfig


class ReconstructionConfig(TaskConfig):
    """Cells are hidden at random, on the grid of the method's own masks."""

    ratio: float = Field(0.6, gt=0, lt=1)
    """Share of hidden cells at which the metrics are taken; the default is SimMIM's in pretraining."""
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares that the curves run over."""
    images: int = Field(1000, ge=4)
    """Test images, at most."""
    shown: int = cosmetic(4, ge=1)
    """Images in each picture."""
    generate: bool = True
    """Also make images step by step, and judge them."""
    generated: int = Field(256, ge=2)
    """How many; at most half the test images, since the other half is what they are compared with."""
    starts: tuple[float, ...] = Field((1.0, 0.75), min_length=1)
    """Shares of cells hidden at the start, 1: everything. The metric is of the first."""
    steps: int = Field(8, ge=1)
    temperature: float = Field(1.0, ge=0)
    """Of the draws of methods that predict a distribution, and of the noise on the order of filling."""
    judge: JudgeConfig = JudgeConfig()

    @field_validator("ratios", "starts")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share <= 1 for share in shares) or len(set(shares)) < len(shares):
            raise ValueError(f"shares of hidden cells must lie in (0, 1], each once, not {shares}")
        return shares

    @field_validator("ratios")
    @classmethod
    def _some_visible(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if 1 in ratios:
            raise ValueError("a ratio of 1 leaves nothing to rebuild from; starts may be 1")
        return ratios
