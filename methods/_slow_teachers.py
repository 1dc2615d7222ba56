"""What methods share whose teacher is a slow copy of the encoder."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from mimbench.api import Config, Encoder, Method, Teacher, ramp


class EncoderTeacher(Method):
    """A method with a teacher of its encoder, and an option `export`: "student" or "teacher"."""

    config: Any
    teacher: Teacher

    def exported_encoder(self) -> Encoder:
        return self.encoder if self.config.export == "student" else self.teacher.module


class TauConfig(Config):
    """How slowly the teacher follows, in a straight line. A method declares the options again to give them defaults."""

    tau_start: float = Field(ge=0, le=1)
    """What the teacher keeps of itself at each step, to begin with."""
    tau_end: float = Field(ge=0, le=1)
    tau_share: float = Field(ge=0, le=1)
    """Share of the training over which it goes in a straight line from tau_start to tau_end."""

    @model_validator(mode="after")
    def _rises(self) -> TauConfig:
        if self.tau_start > self.tau_end:
            raise ValueError(f"tau_start {self.tau_start:g} is above tau_end {self.tau_end:g}")
        return self

    def tau_at(self, progress: float) -> float:
        """What the teacher keeps of itself at this progress of the training, in [0, 1]."""
        return ramp(progress, self.tau_start, self.tau_end, warmup=self.tau_share)


def variance_over_tokens(tokens: Tensor) -> Tensor:
    """Variance of [..., D] over all axes but the channels, mean over these: near 0 if training has collapsed."""
    return tokens.flatten(0, -2).var(0, correction=0).mean()


def variance_logs(target: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    """`variance_over_tokens` of both, to log."""
    return {
        "target_variance": variance_over_tokens(target),
        "prediction_variance": variance_over_tokens(prediction.detach().float()),
    }
