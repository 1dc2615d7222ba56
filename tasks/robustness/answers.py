"""What a classifier answers to corrupted images, and how often it is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mimbench.api import DeviceTransform, InputConfig, map_over_ranks
from mimbench_tasks.robustness.corrupted_images import CorruptedImages
from mimbench_tasks.robustness.severities import CORRUPTIONS


def answer_corrupted(
    answer: Callable[[Tensor], np.ndarray],
    images: CorruptedImages,
    input_config: InputConfig,
    *,
    channels: int,
    device: torch.device,
    workers: int,
) -> np.ndarray:
    """The answered classes, int [images, corruptions x severities]. Ranks share the images.

    Args:
        answer: normalised images [B, C, S, S] on the device -> classes int [B].
        channels: that the classifier takes.
        workers: processes that corrupt images.
    """
    batched = images.split.is_in_memory
    transform = DeviceTransform(input_config, channels, train=False, batched=batched).to(device)

    @torch.inference_mode()
    def answer_views(views: Tensor) -> np.ndarray:
        return answer(transform(views.to(device, non_blocking=True)))

    return np.stack(map_over_ranks(answer_views, images.loader(device, workers)))


def score_corrupted(
    answers: np.ndarray, labels: np.ndarray, severities: Sequence[int]
) -> tuple[float, dict[str, Sequence[float]]]:
    """Top-1 accuracy over corruptions and severities, percent, and its curves by severity.

    Args:
        answers: from `answer_corrupted`.
        labels: int [images].
    """
    top1 = 100 * (answers == labels[:, None]).mean(0).reshape(len(CORRUPTIONS), len(severities))
    curves: dict[str, Sequence[float]] = {"severity": list(severities), "top1": top1.mean(0).tolist()}
    curves |= {f"top1, {name}": values.tolist() for name, values in zip(CORRUPTIONS, top1, strict=True)}
    return float(top1.mean()), curves
