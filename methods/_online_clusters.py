"""CAPI's online clustering: learned prototypes, and balanced assignments of patches to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import at_least_float32, sinkhorn


class OnlineClusters(nn.Module):
    """Clusters of normalised features, which learn to agree with their own balanced assignments.

    Weights start from a standard normal distribution, as officially: facebookresearch/capi@0145b88f model.py.

    Attributes:
        weight: [clusters, dim], one prototype per row.
        bias: [clusters], initially 0.
    """

    def __init__(
        self, dim: int, clusters: int, *, target_temp: float, temp: float, sinkhorn_steps: int, per_position: bool
    ) -> None:
        """Make the clusters.

        Args:
            target_temp: divides the logits before they are balanced.
            temp: divides them in the loss.
            per_position: balance the clusters over the images at each position, not over all patches together.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(clusters, dim))
        self.bias = nn.Parameter(torch.zeros(clusters))
        self.target_temp, self.temp = target_temp, temp
        self.sinkhorn_steps, self.per_position = sinkhorn_steps, per_position

    def logits(self, features: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, clusters], at least float32."""
        return at_least_float32(F.linear(F.normalize(features, dim=-1, eps=1e-7), self.weight, self.bias))

    def assign(self, logits: Tensor) -> Tensor:
        """Balanced assignments without gradient: float32 [B, N, clusters]; those of a patch sum to 1."""
        scores = logits.detach().transpose(0, 1) / self.target_temp
        if self.per_position:
            return sinkhorn(scores, self.sinkhorn_steps).transpose(0, 1)
        return sinkhorn(scores.flatten(0, 1), self.sinkhorn_steps).view_as(scores).transpose(0, 1)

    def loss(self, logits: Tensor, assignments: Tensor) -> Tensor:
        """Cross-entropy of the logits with the assignments, mean over all patches of all images."""
        return cross_entropy(logits / self.temp, assignments)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with target distributions, both [..., clusters], mean over the other axes."""
    return -(target * F.log_softmax(logits, -1)).sum(-1).mean()


@torch.no_grad()
def entropy(assignments: Tensor, chunk: int = 8) -> Tensor:
    """Entropy in nats of distributions [B, N, clusters], mean over B and N.

    chunk: images that are computed at a time, since the terms of all images take as much memory as the assignments.
    """
    return -torch.cat([torch.xlogy(part, part).sum(-1) for part in assignments.split(chunk)]).mean()
