"""How well a map agrees with the object's mask, and with what the classifier does: one value per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench_tasks.attribution.maps import mean_colour

FRACTIONS = tuple(step / 16 for step in range(17))
"""Shares of the pixels that are deleted or inserted."""


def uniform_noise(seed: int, images: Sequence[int], count: int) -> Tensor:
    """Noise from 0 to 1 of each image, float [B, count]. It depends on the seed and the image's number alone."""
    return torch.from_numpy(np.stack([np.random.RandomState([seed, image]).rand(count) for image in images])).float()


def ranked(maps: Tensor, noise: Tensor) -> Tensor:
    """Pixels from the highest value of a map to its lowest, int64 [B, S * S]; equal values in the order of the noise.

    maps: [B, S, S]. noise: [B, S * S].
    """
    order = noise.argsort(1)
    return order.gather(1, maps.flatten(1).gather(1, order).argsort(dim=1, descending=True, stable=True))


def widened(masks: Tensor, tolerance: float) -> Tensor:
    """Masks bool [B, S, S] with all pixels that are no farther than `tolerance` px from them."""
    reach = int(tolerance)
    axis = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (axis.square()[:, None] + axis.square()[None, :] <= tolerance**2).float()
    return F.conv2d(masks[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5


def points_at(order: Tensor, masks: Tensor, tolerance: float) -> Tensor:
    """The pointing game (arXiv:1608.00507): whether the highest pixel lies in the object, or near it; bool [B]."""
    return widened(masks, tolerance).flatten(1).gather(1, order[:, :1])[:, 0]


def energy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a non-negative map that lies in the object, [B], in percent; that of the object's area if it is 0."""
    maps = maps.double()
    inside, total = (maps * masks).sum((1, 2)), maps.sum((1, 2))
    area = masks.double().mean((1, 2))
    return 100 * torch.where(total > 0, inside / total.clamp_min(1e-300), area)


def deletion_and_insertion(
    probability: Callable[[Tensor], Tensor], images: Tensor, order: Tensor
) -> tuple[Tensor, Tensor]:
    """Area under the probability while pixels are deleted, or inserted into a plain image, in order: [B] each.

    Petsiuk et al., arXiv:1806.07421, with the mean of the image for pixels left out. Deletion: lower is better.

    Args:
        probability: images -> probability of the class to explain, [B].
        order: from `ranked`.
    """
    count, mean = order.shape[1], mean_colour(images)
    rank = order.argsort(1).unflatten(1, images.shape[-2:])[:, None]
    deleted, inserted = [], []
    for fraction in FRACTIONS:
        is_high = rank < round(fraction * count)
        deleted.append(probability(torch.where(is_high, mean, images)))
        inserted.append(probability(torch.where(is_high, images, mean)))
    deletion, insertion = (torch.trapezoid(torch.stack(one, 1).double(), dx=1 / 16) for one in (deleted, inserted))
    return deletion, insertion


def rank_correlation(first: Tensor, second: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
    """Spearman's correlation of two maps [B, S, S] over pixels: [B].

    noise: by which equal values of the one and of the other are ordered, [B, S * S] each.
    """
    ranks = [ranked(*one).argsort(1).double() for one in zip((first, second), noise, strict=True)]
    centred = [one - one.mean(1, keepdim=True) for one in ranks]
    return F.cosine_similarity(centred[0], centred[1], dim=1)


def mean_with_interval(values: Tensor) -> list[float]:
    """Mean of two or more values [N], and the ends of its 95 % interval by Student's t."""
    from scipy import stats  # slow to import

    mean, count = float(values.mean()), len(values)
    half = float(stats.t.ppf(0.975, count - 1) * values.std() / count**0.5)
    return [mean, mean - half, mean + half]
