"""Memory that the CPU's kernels take while they run, and free before they return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimbench.harness.forecast.memory import bytes_of

_MANY = 16
"""Images from which on torch takes oneDNN for a convolution of single cells too."""
_SOFTMAX = {
    torch.ops.aten._softmax.default,
    torch.ops.aten._log_softmax.default,
    torch.ops.aten._softmax_backward_data.default,
    torch.ops.aten._log_softmax_backward_data.default,
}
"""Their first argument is the input, or the gradient of the output."""


def workspace_of(func: Any, args: Any) -> int:
    """Bytes that an operator takes on the CPU besides its results; 0 for all but softmax and convolutions.

    A softmax copies an input that is not contiguous, such as the scores of maps that a ViT's tokens became.

    oneDNN computes on copies of its inputs in a layout of its own: forward of the images and the weight, backward of
    the images, or their gradient, and of the gradient of the output. Measured with torch 2.14: the sum of the copies
    lies within a few percent of what the profiler notes.
    """
    if func in _SOFTMAX:
        return 0 if args[0].is_contiguous() else bytes_of(args[0])
    if func is torch.ops.aten.convolution.default:
        images, weight = args[0], args[1]
        return bytes_of(images, weight) if _is_by_onednn(images, weight, args[3]) else 0
    if func is torch.ops.aten.convolution_backward.default:
        gradient, images, weight, groups = args[0], args[1], args[2], args[9]
        if not _is_by_onednn(images, weight, args[4]):
            return 0
        return max(bytes_of(gradient), bytes_of(images)) if groups > 1 else bytes_of(gradient, images)
    return 0


def _is_by_onednn(images: Tensor, weight: Tensor, stride: Any) -> bool:
    is_single_cell = all(side == 1 for side in weight.shape[2:]) and all(step == 1 for step in stride)
    return not is_single_cell or len(images) >= _MANY
