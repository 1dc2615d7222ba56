"""Options of HPM."""

from __future__ import annotations

from pydantic import Field

from mimbench_methods._pixel_decoder import PixelDecoderConfig
from mimbench_methods._slow_teachers import TauConfig


class HPMConfig(PixelDecoderConfig, TauConfig):
    """The defaults are those of the official ViT-B in 200 epochs."""

    norm_pixels: bool = False
    guided_share: float = Field(0.5, ge=0, le=1)
    """Share of the masked patches that the teacher chooses at the end of the training; it grows from 0."""
    growth_steps: int | None = Field(None, ge=1)
    """guided_share and tau change at the beginning of this many equal parts of the training. Officially each epoch is
    one part. Absent: they change with each step."""
    tau_start: float = Field(0.999, ge=0, le=1)
    """What the teacher keeps of itself at each step, to begin with."""
    tau_end: float = Field(0.9999, ge=0, le=1)
    tau_share: float = Field(0.5, gt=0, le=1)
    """Share of the training over which tau goes in a straight line from tau_start to tau_end."""

    def share_at(self, progress: float) -> float:
        """Share of the masked patches that the teacher chooses in the step that begins at `progress`, in [0, 1)."""
        parts = self.growth_steps
        return self.guided_share * (progress if parts is None else (self._part(progress) + 1) / parts)

    def tau_at(self, progress: float) -> float:
        """What the teacher keeps of itself in the step that begins at `progress`, in [0, 1)."""
        parts = self.growth_steps
        return super().tau_at(progress if parts is None else self._part(progress) / parts)

    def _part(self, progress: float) -> int:
        """Which of the `growth_steps` parts of the training `progress` lies in, from 0."""
        return int(progress * (self.growth_steps or 1) + 1e-6)
