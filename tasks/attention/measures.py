"""Measures of attention weights among patches: [B, heads, N, N], whose rows are queries and sum to 1, -> [B, heads].

Distance, entropy and divergence of heads follow arXiv:2205.13543; the normalised mutual information is that of
cl-vs-mim@eafe516 self_attention_analysis.ipynb (arXiv:2305.00729).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LEAST = 1e-12
"""Weights below it count as this much in a logarithm, so that divergences are finite."""


def between_patches(attention: Tensor, prefix: int) -> Tensor:
    """Weights among patches alone: float64, rows sum to 1 again.

    Args:
        attention: [B, heads, P + N, P + N].
        prefix: number P of class and register tokens, which come first.
    """
    weights = attention[:, :, prefix:, prefix:].double()
    return weights / weights.sum(-1, keepdim=True).clamp_min(_LEAST)


def patch_distances(grid: tuple[int, int], stride: float) -> Tensor:
    """Distance between the centres of any two patches, px, float64 [N, N]. stride: px from one patch to the next."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    places = stride * torch.stack((rows.flatten(), columns.flatten()), 1)
    return torch.cdist(places, places)


def distance(weights: Tensor, distances: Tensor) -> Tensor:
    """Mean over queries of the distance to the patches that they attend to, px. distances: from `patch_distances`."""
    return (weights * distances).sum(-1).mean(-1)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of the rows as a share of the highest possible one: 0: all weight on one patch; 1: equal weights."""
    highest = math.log(weights.shape[-1]) or 1.0
    return -torch.xlogy(weights, weights).sum(-1).mean(-1) / highest


def mutual_information(weights: Tensor) -> Tensor:
    """Normalised mutual information of query and key: 0: all queries attend to the same keys; 1: each has its own.

    Queries are equally probable. It is 0, and not 0 / 0 as in the official code, if all attend to one patch.
    """
    count = weights.shape[-1]
    of_keys = weights.mean(-2)
    information = (torch.xlogy(weights, weights) - torch.xlogy(weights, of_keys.unsqueeze(-2))).sum((-2, -1)) / count
    scale = (-torch.xlogy(of_keys, of_keys).sum(-1) * math.log(count)).clamp_min(0).sqrt()
    return torch.where(scale > _LEAST, information / scale.clamp_min(_LEAST), 0.0).clamp(0, 1)


def head_divergence(weights: Tensor) -> Tensor:
    """Mean over the other heads and the queries of the Kullback-Leibler divergence from them, nats; 0 for one head."""
    heads, count = weights.shape[1], weights.shape[-1]
    logs = weights.clamp_min(_LEAST).log()
    cross = torch.einsum("bhqk,bgqk->bhg", weights, logs) / count
    of_pairs = cross.diagonal(dim1=1, dim2=2).unsqueeze(-1) - cross
    return of_pairs.sum(-1) / max(1, heads - 1)
