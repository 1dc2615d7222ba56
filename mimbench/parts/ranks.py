"""Means over the processes that train together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimbench.distributed import average_over_ranks, get_world_size


def mean_over_ranks(tensor: Tensor, *, differentiable: bool = False) -> Tensor:
    """The mean of `tensor` over all processes. All ranks call it, with tensors of one shape and dtype.

    Args:
        tensor: floating point, any shape. It is not changed.
        differentiable: gradients flow back to the tensors of all ranks, for a loss on the mean. Then all ranks must
            run the backward pass too. Otherwise the result has no gradient, as centres and statistics need.

    Returns:
        A new tensor; in a single process, a copy.
    """
    if differentiable:
        return _Mean.apply(tensor) if get_world_size() > 1 else tensor.clone()
    return average_over_ranks(tensor)


class _Mean(torch.autograd.Function):
    """Each rank's loss depends on every rank's tensor, so that its gradient is the mean over the ranks as well."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return average_over_ranks(tensor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return average_over_ranks(gradients[0])
