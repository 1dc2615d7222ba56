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


def scores(probabilities: Tensor, labels: Tensor, bins: int) -> dict[str, Measured]:
    """top1, top5 and ece (arXiv:1706.04599: equally wide bins of the top class's probability), percent."""
    from torchmetrics.functional.classification import binary_calibration_error

    best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
    hits = best.indices == labels[:, None]
    # torchmetrics would give probabilities of exactly 1 an extra bin.
    confidence = best.values[:, 0].clamp(max=1 - torch.finfo(torch.float32).eps)
    error = binary_calibration_error(confidence, hits[:, 0].long(), n_bins=bins, norm="l1")
    values = {"top1": hits[:, 0].float().mean(), "top5": hits.any(1).float().mean(), "ece": error}
    return {name: Measured(100 * float(value), len(labels)) for name, value in values.items()}
