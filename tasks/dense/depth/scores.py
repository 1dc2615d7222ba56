"""The loss of depth, and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimbench.api import DepthSplit, InputError
from mimbench_tasks.dense.depth.config import Region

_EPSILON = 1e-3
"""m, added before the logarithm."""
_EIGEN_SIZE = (480, 640)
"""Height and width of NYUv2's images, in whose pixels the region eigen is given."""
_MEAN_WEIGHT = 0.15
"""Of the squared mean of the logarithmic errors. 0 would make the loss blind to scale, 1 a plain mean square."""


def scale_invariant_loss(predicted: Tensor, truth: Tensor, low: float, high: float) -> Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2) of each image, g = log(prediction) - log(truth), and the mean over the images.

    Eigen et al. (arXiv:1406.2283) as facebookresearch/dinov2@d5c376b5 sigloss.py weights it, there over all pixels of a
    process's batch. An image with fewer than two readings counts with 0.

    Args:
        predicted: [B, H, W], m, above 0.
        truth: [B, H, W], m. Readings outside of (low, high) count nowhere.
    """
    known = (truth > low) & (truth < high)
    counts = known.sum((1, 2))
    errors = torch.where(known, (predicted + _EPSILON).log() - (truth.clamp(min=0) + _EPSILON).log(), 0.0)
    means = errors.sum((1, 2)) / counts.clamp(min=1)
    squares = torch.where(known, (errors - means[:, None, None]).square(), 0.0).sum((1, 2))
    variances = squares / (counts - 1).clamp(min=1)
    losses = (variances + _MEAN_WEIGHT * means.square() + 1e-8).sqrt()
    return torch.where(counts > 1, losses, 0.0).mean()


@dataclass(frozen=True)
class ImageScores:
    """Errors of one image over its scored pixels."""

    delta1: float
    """Percent of pixels whose prediction is off by a factor below 1.25."""
    rmse: float
    """m."""
    abs_rel: float
    """Mean of |prediction - truth| / truth."""


def score_image(predicted: Tensor, truth: Tensor, low: float, high: float, region: Region) -> ImageScores | None:
    """Scores of one image; None if none of its pixels has a reading in (low, high) and in the region.

    Args:
        predicted: [H, W], m; clamped to [low, high].
        truth: [H, W], m.
    """
    known = (truth > low) & (truth < high) & region_mask(truth.shape, region)
    if not bool(known.any()):
        return None
    depth, guess = truth[known].double(), predicted[known].double().clamp(low, high)
    ratio = torch.maximum(guess / depth, depth / guess)
    return ImageScores(
        delta1=100 * float((ratio < 1.25).double().mean()),
        rmse=float((guess - depth).square().mean().sqrt()),
        abs_rel=float(((guess - depth).abs() / depth).mean()),
    )


def check_region(split: DepthSplit, region: Region, where: str) -> None:
    """Raise InputError if images of the split are of a size that has no such region. where: names the split."""
    if region != "eigen":
        return
    for index in range(len(split)):
        if tuple(split.shape(index)) != _EIGEN_SIZE:
            height, width = split.shape(index)
            raise InputError(
                f"task.region eigen is of images of 480 x 640 px, and image {index} of {where} has "
                f"{height} x {width} px; set task.region to all or garg"
            )


def region_mask(size: Sequence[int], region: Region) -> Tensor:
    """bool [H, W]: the pixels that are scored.

    zhyever/Monocular-Depth-Estimation-Toolbox@b3df83fe depth/datasets/nyu.py, which DINOv2 scores with.
    """
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.bool)
    if region == "eigen":
        mask[45:471, 41:601] = True
    elif region == "garg":
        rows = slice(int(0.40810811 * height), int(0.99189189 * height))
        mask[rows, int(0.03594771 * width) : int(0.96405229 * width)] = True
    else:
        mask[:] = True
    return mask


def average(scores: Sequence[ImageScores | None], where: str) -> tuple[ImageScores, int]:
    """The mean of each score over the images that have one, and how many these are.

    Args:
        where: names the images in the message.

    Raises:
        InputError: none has.
    """
    known = [one for one in scores if one is not None]
    if not known:
        raise InputError(
            f"{where}: no image has a reading that is scored; see task.region, task.min_depth and task.max_depth"
        )
    values = torch.tensor([[one.delta1, one.rmse, one.abs_rel] for one in known], dtype=torch.float64).mean(0)
    return ImageScores(*values.tolist()), len(known)
