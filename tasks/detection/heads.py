"""Parts that the mmdet configs of several detection heads share."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

from mimbench_tasks.detection.config import DetectionConfig


@dataclass(frozen=True)
class Heads:
    """The options that detection heads are built from."""

    config: DetectionConfig
    classes: int
    """Number of classes."""
    strides: tuple[int, ...]
    """Strides of all pyramid levels in px, finest first."""

    @property
    def channels(self) -> int:
        return self.config.channels


def assigner(positive: float, negative: float, least: float, *, low_quality: bool = True) -> dict[str, Any]:
    """Assigns boxes to objects by IoU.

    Args:
        positive: IoU from which a box is an object.
        negative: IoU below which a box is background.
        least: IoU from which an object's best box may be assigned to it anyway, if `low_quality`.
    """
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": least,
        "match_low_quality": low_quality,
        "ignore_iof_thr": -1,
    }


def coder(centre: float, size: float) -> dict[str, Any]:
    """Encodes boxes as offsets from anchors, divided by these standard deviations of centre and size."""
    return {
        "type": "DeltaXYWHBBoxCoder",
        "target_means": [0.0] * 4,
        "target_stds": [centre, centre, size, size],
    }


def norm_layer(name: str | None, channels: int) -> dict[str, Any] | None:
    """Config of the norm called `name`; None for no norm."""
    if name is None:
        return None
    if name == "GN":
        return group_norm(channels)
    return {"type": "ChannelLayerNorm", "eps": 1e-6} if name == "LN" else {"type": name}


def group_norm(channels: int) -> dict[str, Any]:
    """GroupNorm with 32 groups, or at most 8 groups below 256 channels."""
    return {"type": "GN", "num_groups": gcd(channels, 32) if channels >= 256 else gcd(channels, 8)}
