"""Accuracy and calibration of a classifier on a labelled split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mimbench.api import DeviceTransform, Measured, map_over_ranks


def compute_logits(
    classifier: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], transform: DeviceTransform, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, classes] and labels int64 [N] of the batches of all ranks in order, on the CPU.

    loader: the batches of this rank.
    """
    classifier.eval().to(device)
    transform.to(device)

    @torch.inference_mode()
    def compute(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return classifier(transform(images.to(device, non_blocking=True))).float().cpu(), labels

    rows, labels = zip(*map_over_ranks(compute, loader), strict=True)
    return torch.cat(rows), torch.cat(labels)


def hits(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """top1 and top5 of each image: bool [N]."""
    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices == labels[:, None]
    return {"top1": best[:, 0], "top5": best.any(1)}


def scores(probabilities: Tensor, labels: Tensor, bins: int) -> dict[str, Measured]:
    """top1, top5 and ece (arXiv:1706.04599: equally wide bins of the top class's probability), percent."""
    from torchmetrics.functional.classification import binary_calibration_error

    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    # torchmetrics would give probabilities of exactly 1 an extra bin.
    confidence = best.values[:, 0].clamp(max=1 - torch.finfo(torch.float32).eps)
    right = hits(probabilities, labels)
    error = binary_calibration_error(confidence, right["top1"].long(), n_bins=bins, norm="l1")
    values = {**{name: of_images.float().mean() for name, of_images in right.items()}, "ece": error}
    return {name: Measured(100 * float(value), len(labels)) for name, value in values.items()}
