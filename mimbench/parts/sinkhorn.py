"""Sinkhorn-Knopp: assignments of samples to clusters of equal size (SwAV, arXiv:2006.09882; CAPI, arXiv:2502.08769)."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.distributed import reduce_over_ranks

_SHIFT = 50.0
"""The largest exponent of each cluster. Its sum over samples is then far above `eps`, and far below float32's limit."""


@torch.no_grad()
def sinkhorn(scores: Tensor, steps: int, eps: float = 1e-8) -> Tensor:
    """Assign the samples of all processes to clusters, about as many to each cluster.

    In each step the weights of a cluster are divided by their sum over the samples, then those of a sample by their sum
    over the clusters. This is the arithmetic of facebookresearch/capi@0145b88f model.py (sinkhorn_knopp), in float32.

    Args:
        scores: [..., samples, clusters], divided by the temperature. Leading axes, such as positions, are independent.
            All processes have the same number of them.
        steps: 1 or more.
        eps: added to each sum.

    Returns:
        float32 [..., samples, clusters]. The weights of a sample sum to 1, or to about 0 if its scores are so far below
        those of other samples that all its weights vanish.
    """
    scores = scores.float()
    highest = reduce_over_ranks(scores.amax(-2, keepdim=True), "max")
    weights = (scores + (_SHIFT - highest)).exp_()
    for _ in range(steps):
        weights /= reduce_over_ranks(weights.sum(-2, keepdim=True), "sum") + eps
        weights /= weights.sum(-1, keepdim=True) + eps
    return weights
