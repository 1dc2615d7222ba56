"""Attacks: each gives an image a score, which is high if the image looks like one of the training set.

Every image gets the same masks, or the same crops. If members were treated in another way than other images, that alone
would separate them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import (
    Encoder,
    Method,
    NotSupported,
    mask_at_pixels,
    random_mask,
)

BATCH = 64
"""Images per batch: always the same, since sums of other batches are rounded in another way."""
SEED = 0
"""Of masks and crops: the same ones for all methods and seeds."""
UNMASKED_RATIO = 0.6
"""Mask ratio for a method that trains without masks."""
Box = tuple[float, float, float]
"""Top, left and side of a square crop, as shares of the image's side."""
Scorer = Callable[[Tensor], Tensor]
"""Normalised images [B, C, S, S] -> scores [B]."""


def reconstruction(method: Method, masks: int) -> Scorer:
    """The attack by reconstruction: minus the mean squared error of masked pixels, mean over masks (arXiv:2408.06825).

    The masks are drawn as in the pretraining of the method, once for all images. Pixels are normalised. The attacker
    has the image, so a method that needs statistics of masked patches gets the true ones.
    """
    cells = _draw_masks(method, masks)

    def score(images: Tensor) -> Tensor:
        errors = []
        for one in cells:
            mask = one.expand(len(images), *one.shape).contiguous()
            masked = mask_at_pixels(mask, images).expand_as(images)
            error = (method.reconstruct(images, mask).float() - images).square() * masked
            errors.append(error.sum((1, 2, 3)) / masked.sum((1, 2, 3)))
        return -torch.stack(errors).mean(0)

    return score


def _draw_masks(method: Method, count: int) -> Tensor:
    """Masks of the method's own kind, bool [count, Gh, Gw]."""
    device = next(method.parameters()).device
    generator = torch.Generator(device).manual_seed(SEED)
    try:
        cells = method.masked_cells(method.sample_mask(count, generator))
    except NotSupported:
        cells = None
    if cells is None:
        grid = method.encoder.grid
        cells = random_mask(count, grid, UNMASKED_RATIO, generator)
    return cells


def alignment(encoder: Encoder, boxes: Sequence[Box], layer: int, pooling: str) -> Scorer:
    """The attack by alignment: minus the mean distance between the features of crops, over all pairs of crops.

    Images that were trained on are expected to change less, as arXiv:2401.12233 has it. The crops are the same boxes of
    each image.
    """
    pairs = torch.triu_indices(len(boxes), len(boxes), 1)

    def score(images: Tensor) -> Tensor:
        features = [encoder.features(view, layer).pool(pooling).float() for view in crops(images, boxes)]
        stacked = torch.stack(features, 1)
        return -(stacked[:, pairs[0]] - stacked[:, pairs[1]]).norm(dim=2).mean(1)

    return score


def draw_boxes(count: int, scale: float) -> list[Box]:
    """Square crops of at least a share `scale` of the image's area."""
    draws = torch.rand(count, 3, generator=torch.Generator().manual_seed(SEED))
    boxes = []
    for area, top, left in draws.tolist():
        side = (scale + (1 - scale) * area) ** 0.5
        boxes.append((top * (1 - side), left * (1 - side), side))
    return boxes


def crops(images: Tensor, boxes: Sequence[Box]) -> list[Tensor]:
    """Images [B, C, S, S] cropped to each box, to whole pixels, and resized to S."""
    size = images.shape[-1]
    views = []
    for top, left, side in boxes:
        length = max(1, round(side * size))
        row, column = (min(round(start * size), size - length) for start in (top, left))
        crop = images[:, :, row : row + length, column : column + length]
        views.append(F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=False))
    return views
