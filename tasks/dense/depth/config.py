"""Options of the depth task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench_tasks.dense.config import ParallelHeadsConfig

Region = Literal["all", "eigen", "garg"]


class DepthConfig(ParallelHeadsConfig):
    """Values come from a protocol; depths in m."""

    head: Literal["linear", "dpt"] = "linear"
    """linear: one linear layer on each patch. dpt: maps of four layers, reassembled at four scales and fused by
    convolutions (arXiv:2103.13413)."""
    batch_norm: bool = False
    """Normalise each channel before a linear head."""
    upsample: int = Field(4, ge=1)
    """A linear head's map is enlarged by this factor before bins become depths."""
    channels: int = Field(256, ge=8)
    """Of the dpt head's convolutions."""
    output: Literal["bins", "regression"] = "bins"
    """bins: shares of bins, max(0, x) + 0.1 normalised to 1, and their mean depth, as AdaBins (arXiv:2011.14141).
    regression: max(0, x) + min_depth."""
    bins: int = Field(256, ge=2)
    spacing: Literal["uniform", "log"] = "uniform"
    """Of the bins between min_depth and max_depth."""
    min_depth: float = Field(1e-3, gt=0)
    """Readings at or below it are not used."""
    max_depth: float | None = Field(None, gt=0)
    """Readings at or above it are not used; absent: that of the dataset."""
    region: Region = "all"
    """Pixels that are scored. eigen: rows 45 to 470 and columns 41 to 600 of NYUv2's 480 x 640. garg: the central part,
    from 40.8 % to 99.2 % of the rows and 3.6 % to 96.4 % of the columns."""
    flip_test: bool = False
    """Average the predictions of a test image and of its mirror image."""

    @model_validator(mode="after")
    def _consistent(self) -> DepthConfig:
        if self.max_depth is not None and self.max_depth <= self.min_depth:
            raise ValueError(f"max_depth {self.max_depth:g} must be above min_depth {self.min_depth:g}")
        if self.head == "dpt" and len(self.layers) != 4:
            raise ValueError(f"head dpt fuses the maps of 4 layers, and layers names {len(self.layers)}")
        if self.augmentation.most_of_crop < 1 or self.augmentation.photometric:
            raise ValueError("augmentation.most_of_crop and photometric are for classes; use augmentation.colour")
        if self.augmentation.scale_jitter != (1.0, 1.0):
            raise ValueError("augmentation.scale_jitter would change what depth a size means; leave it out")
        return self
