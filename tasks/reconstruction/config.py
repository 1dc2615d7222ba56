"""Options of the reconstruction task."""

from __future__ import annotations

from pydantic import Field, field_validator

from mimbench.api import TaskConfig, cosmetic
from mimbench_tasks.reconstruction.judge import JudgeConfig


class ReconstructionConfig(TaskConfig):
    """Masks are random, on the grid of the method's own masks."""

    ratio: float = Field(0.6, gt=0, lt=1)
    """Mask ratio of the metrics. The default is SimMIM's in pretraining."""
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Mask ratios of the curves."""
    images: int = Field(1000, ge=4)
    """Maximum number of test images."""
    shown: int = cosmetic(4, ge=1)
    """Images in each picture."""
    generate: bool = True
    """Also generate images step by step and score them."""
    generated: int = Field(256, ge=2)
    """Maximum number of generated images. It is also limited to half of the test images, since they are compared with
    the other half."""
    starts: tuple[float, ...] = Field((1.0, 0.75), min_length=1)
    """Mask ratios at the start of generation; 1 masks everything. The metric is that of the first ratio."""
    steps: int = Field(8, ge=1)
    temperature: float = Field(1.0, ge=0)
    """Temperature of draws from predicted distributions, and of the noise on the order in which cells are filled."""
    judge: JudgeConfig = JudgeConfig()

    @field_validator("ratios", "starts")
    @classmethod
    def _are_ratios(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < ratio <= 1 for ratio in ratios) or len(set(ratios)) < len(ratios):
            raise ValueError(f"mask ratios must be in (0, 1] and differ, not {ratios}")
        return ratios

    @field_validator("ratios")
    @classmethod
    def _some_visible(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if 1 in ratios:
            raise ValueError("a ratio of 1 leaves nothing visible; only starts may be 1")
        return ratios
