"""Options of data2vec."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench_methods._slow_teachers import TauConfig


class Data2VecConfig(TauConfig):
    """The defaults are those of the official ViT-B, with 14 x 14 patches."""

    hidden_patches: int = Field(120, ge=1)
    """Most patches that are masked in an image; a mask may have a few less, as in the official code. If the image size
    changes over the training (pretrain.image_sizes), this is for input.image_size, and the share stays."""
    min_block: int = Field(16, ge=1)
    """Least size of a block, in patches."""
    target_layers: int = Field(6, ge=1)
    """How many of the teacher's last layers the target is the mean of."""
    norm_layers: bool = True
    """Normalise each layer's patches over their channels before the mean."""
    norm_target: bool = True
    """Normalise the mean so, too."""
    beta: float = Field(2.0, ge=0)
    """Error at which the smooth L1 loss goes from square to straight; 0: L1."""
    tau_start: float = Field(0.9998, ge=0, le=1)
    """What the teacher keeps of itself at each step, to begin with."""
    tau_end: float = Field(0.9998, ge=0, le=1)
    tau_share: float = Field(0.0, ge=0, le=1)
    """Share of the training over which it goes in a straight line from tau_start to tau_end; 0: tau_end at once."""
    export: Literal["student", "teacher"] = "student"
    """Whose encoder the tasks get."""

    @model_validator(mode="after")
    def _consistent(self) -> Data2VecConfig:
        if self.tau_share == 0 and self.tau_start != self.tau_end:
            raise ValueError(f"tau_start {self.tau_start:g} does nothing while tau_share is 0")
        return self
