"""Options of the learning rate over a training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench.contract.config import Config, added


class ScheduleConfig(Config):
    """The learning rate over optimizer steps."""

    kind: Literal["cosine", "linear", "multistep", "constant"] = "cosine"
    convention: Literal["plain", "simmim", "mae", "beit", "ijepa", "spark"] = "plain"
    """Whose arithmetic to follow. "plain": linear warmup, then a full cosine (or line) over the remaining steps.
    The others: the exact values of these official scripts. Rates are given before scaling by the batch size; "simmim"
    and "spark" scale `warmup_lr` and `min_lr` too."""
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_steps: int | None = added(None, ge=0)
    """The warmup in optimizer steps, instead of `warmup_epochs`."""
    warmup_lr: float = Field(0.0, ge=0)
    min_lr: float = Field(0.0, ge=0)
    cosine_share: float = added(1.0, gt=0, le=1)
    """Share of its half wave that a cosine of the learning rate goes through; below 1 it ends above min_lr."""
    milestones: tuple[float, ...] = ()
    """Epochs after which the rate is multiplied by `gamma` (multistep)."""
    milestone_steps: tuple[int, ...] = added(())
    """The same in optimizer steps, instead of `milestones`."""
    gamma: float = Field(0.1, gt=0)
    cycles: int = added(1, ge=1)
    """How often the schedule runs, warmup and all, each time over an equal share of the training (dBOT's stages)."""

    @model_validator(mode="after")
    def _one_unit(self) -> ScheduleConfig:
        if self.warmup_steps is not None and self.warmup_epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} and warmup_steps {self.warmup_steps}: set only one")
        if self.milestones and self.milestone_steps:
            raise ValueError("milestones and milestone_steps are both set: set only one")
        if self.cosine_share != 1 and self.kind != "cosine":
            raise ValueError(
                f"cosine_share {self.cosine_share:g} is for a cosine, and kind is {self.kind}; leave it out"
            )
        return self

    @property
    def has_warmup(self) -> bool:
        return bool(self.warmup_steps or self.warmup_epochs)
