"""The loss of an order: which patch of each pair has the greater error (HPM)."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.api import mean_over_shares


def rank(predicted: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of which patch of a pair has the greater error, mean over the pairs of all images.

    Args:
        predicted: [B, M]; the difference of two is the logit.
        errors: [B, M], the true ones. Pairs of equal errors do not count.

    Returns:
        The loss, and the share of pairs whose order is right, without gradient.
    """
    logits = predicted.unsqueeze(2) - predicted.unsqueeze(1)
    difference = errors.unsqueeze(2) - errors.unsqueeze(1)
    counted = difference != 0
    # The official code adds 1e-6 inside of the logarithms.
    surprise = -torch.where(difference > 0, (logits.sigmoid() + 1e-6).log(), (1 - logits.sigmoid() + 1e-6).log())
    count = mean_over_shares(counted.sum(), least=1)
    right = ((logits.detach() * difference > 0) & counted).sum() / count
    return (surprise * counted).sum() / count, right
