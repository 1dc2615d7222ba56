"""Batch norms whose statistics are those of all processes that train together, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mimbench.distributed import get_world_size, mean_over_ranks


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `synchronise_batch_norms` makes of each batch norm, of which it stays a subclass.

    In training, mean and variance are taken over the batches of all processes, and so are the running ones. In a single
    process and in evaluation it is the batch norm that it was. torch's SyncBatchNorm does the same on GPUs only. All
    processes call it, and all run the backward pass. Their batches may differ in size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] of any floating point type; statistics are computed in float32 at least."""
        if get_world_size() == 1 or not self.training:
            return super().forward(x)
        with _SyncedStatistics():
            return super().forward(x)


class _SyncedStatistics(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = _batch_norm if function is F.batch_norm else function
        return chosen(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch's function, with the statistics of all processes. Running variances are the unbiased ones, as torch's."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    values = input if input.dtype == torch.float64 else input.float()
    axes, shape = [axis for axis in range(values.ndim) if axis != 1], (-1, *[1] * (values.ndim - 2))
    count = values.new_tensor([values.numel() / values.shape[1]])
    sums = mean_over_ranks(torch.cat((values.sum(axes), count)), differentiable=True)
    mean, count = sums[:-1] / sums[-1], sums[-1]
    centred = values - mean.view(shape)
    variance = mean_over_ranks(centred.square().sum(axes), differentiable=True) / count
    if running_mean is not None and running_var is not None:
        total = count.detach() * get_world_size()
        running_mean.lerp_(mean.detach().to(running_mean), momentum)
        running_var.lerp_((variance.detach() * total / (total - 1)).to(running_var), momentum)
    normed = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normed = normed * weight.view(shape)
    return (normed if bias is None else normed + bias.view(shape)).to(input.dtype)


def synchronise_batch_norms(module: nn.Module) -> None:
    """Let each batch norm within `module` take the statistics of all processes: see `SyncedBatchNorm`.

    So do subclasses, such as those of timm that contain an activation. Weights, statistics and names stay.
    """
    for norm in module.modules():
        is_plain = isinstance(norm, nn.modules.batchnorm._BatchNorm) and not isinstance(norm, SyncedBatchNorm)
        if is_plain and not isinstance(norm, nn.SyncBatchNorm | nn.modules.instancenorm._InstanceNorm):
            norm.__class__ = _synced_class(type(norm))


_classes: dict[type, type] = {}


def _synced_class(kind: type) -> type:
    if kind not in _classes:
        _classes[kind] = type(f"Synced{kind.__name__}", (SyncedBatchNorm, kind), {"__module__": __name__})
    return _classes[kind]
