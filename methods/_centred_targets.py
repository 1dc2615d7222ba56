"""What iBOT learns: a teacher's logits, centred and sharpened to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mimbench.api import mean_over_ranks


def sharpened(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """[..., K] -> probabilities [..., K]. centre: [K]."""
    return ((logits - centre) / temperature).softmax(-1)


def loss_between_views(logits: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    """Cross-entropy between different views, mean over pairs of views and images.

    Args:
        logits: predictions [B, K], one tensor per view.
        targets: probabilities [B, K] of the first views of `logits`.
        temperature: divides the logits.
    """
    logs = [(one / temperature).log_softmax(-1) for one in logits]
    pairs = [(q, p) for q in range(len(targets)) for p in range(len(logs)) if q != p]
    return torch.stack([-(targets[q] * logs[p]).sum(-1).mean() for q, p in pairs]).mean()


@torch.no_grad()
def follow_means(centre: Tensor, patch_centre: Tensor, class_logits: Tensor, patch_logits: Tensor, keep: float) -> None:
    """Move the centres [K] towards the means over the batch of class tokens [B, K] and of patches [B, N, K], in place.

    keep: what the centres keep of themselves, in [0, 1].
    """
    means = mean_over_ranks(torch.stack((class_logits.mean(0), patch_logits.mean((0, 1)))))
    for one, mean in zip((centre, patch_centre), means, strict=True):
        one.lerp_(mean.to(one.dtype), 1 - keep)
