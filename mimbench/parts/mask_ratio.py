"""A mask ratio that changes over the training, as options that methods share."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from mimbench.contract import Config, Method, added
from mimbench.masks import resize_mask
from mimbench.parts.schedules import ramp


class MaskRatioConfig(Config):
    """Options of a method with a mask ratio. A method declares `mask_ratio` again to give it a default.

    `sample_mask` uses `config.ratio_at(self.progress)`, and `__init__` calls `check_mask_ratios(self)`.
    """

    mask_ratio: float = Field(gt=0, lt=1)
    """Share of the patches that is masked: by the end of the training, if it changes, and in pictures."""
    initial_mask_ratio: float | None = added(None, gt=0, lt=1)
    """Mask ratio at the first step, from which it moves to `mask_ratio`. Default: `mask_ratio` all the time."""
    mask_ratio_ramp: Literal["linear", "cosine", "step"] = added("linear")
    """How it moves. step: it stays, and changes at once at `mask_ratio_until`."""
    mask_ratio_until: float = added(1.0, gt=0, le=1)
    """Fraction of the training until which it moves; then it is `mask_ratio`. At 1, the last step is close to it."""

    @model_validator(mode="after")
    def _has_a_start(self) -> MaskRatioConfig:
        if self.initial_mask_ratio is None and (self.mask_ratio_ramp, self.mask_ratio_until) != ("linear", 1.0):
            raise ValueError("mask_ratio_ramp and mask_ratio_until need an initial_mask_ratio to start from")
        if self.mask_ratio_ramp == "step" and self.mask_ratio_until == 1:
            raise ValueError('mask_ratio_ramp "step" needs a mask_ratio_until below 1, when the ratio changes')
        return self

    def ratio_at(self, progress: float) -> float:
        """The mask ratio at this progress of the training, in [0, 1]."""
        if self.initial_mask_ratio is None:
            return self.mask_ratio
        return ramp(
            progress, self.initial_mask_ratio, self.mask_ratio, self.mask_ratio_ramp, warmup=self.mask_ratio_until
        )


def check_mask_ratios(method: Method) -> None:
    """Draw a mask at the first and at the last mask ratio, so that an impossible one is refused before the training.

    Raises:
        InputError: as `sample_mask` raises it.
    """
    for progress in (0.0, 1.0):
        method.progress = progress
        method.sample_mask(1, torch.Generator())


def count_visible(method: Method) -> int:
    """Patches of each image that are visible at this progress of the training.

    For methods whose masks of one ratio have as many visible patches in each image. Count before the step, so that the
    step does not read the mask, for which an accelerator would have to be waited for.
    """
    mask = method.sample_mask(1, torch.Generator())
    return int((~resize_mask(mask, method.patch_grid)).sum())
