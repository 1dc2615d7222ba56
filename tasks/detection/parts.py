"""What the configs of several heads have in common."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

from mimbench_tasks.detection.config import DetectionConfig


@dataclass(frozen=True)
class Heads:
    """What the heads depend on."""

    config: DetectionConfig
    classes: int
    strides: tuple[int, ...]
    """Of all levels, finest first."""

    @property
    def channels(self) -> int:
        return self.config.channels


def assigner(positive: float, negative: float, least: float, *, low_quality: bool = True) -> dict[str, Any]:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": least,
        "match_low_quality": low_quality,
        "ignore_iof_thr": -1,
    }


def coder(centre: float, size: float) -> dict[str, Any]:
    return {
        "type": "DeltaXYWHBBoxCoder",
        "target_means": [0.0] * 4,
        "target_stds": [centre, centre, size, size],
    }


def norm_layer(name: str | None, channels: int) -> dict[str, Any] | None:
    if name is None:
        return None
    if name == "GN":
        return group_norm(channels)
    return {"type": "ChannelLayerNorm", "eps": 1e-6} if name == "LN" else {"type": name}


def group_norm(channels: int) -> dict[str, Any]:
    return {"type": "GN", "num_groups": gcd(channels, 32) if channels >= 256 else gcd(channels, 8)}
