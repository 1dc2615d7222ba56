"""Batch norms whose statistics are those of all processes that train together, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimbench.distributed import get_world_size
from mimbench.parts.ranks import mean_over_ranks


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """In training, mean and variance are taken over the batches of all processes, and so are the running ones.

    In a single process and in evaluation it is torch's BatchNorm2d. torch's SyncBatchNorm does the same on GPUs only.
    All processes call it, and all run the backward pass. Their batches may differ in size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] of any floating point type; statistics are computed in float32 at least."""
        if get_world_size() == 1 or not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        values = x if x.dtype == torch.float64 else x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = mean_over_ranks(torch.cat((values.sum((0, 2, 3)), count)), differentiable=True)
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = values - mean[:, None, None]
        variance = mean_over_ranks(centred.square().sum((0, 2, 3)), differentiable=True) / count
        self._follow(mean.detach(), variance.detach(), count.detach() * get_world_size())
        normed = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normed = normed * self.weight[:, None, None] + self.bias[:, None, None]
        return normed.to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as torch does: their variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replace each `nn.BatchNorm2d` within `module` by a `SyncedBatchNorm2d` with its weights and statistics.

    Subclasses, such as those of timm that contain an activation, stay as they are.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _synced(child))


def _synced(norm: nn.BatchNorm2d) -> SyncedBatchNorm2d:
    made = SyncedBatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
    )
    made._parameters.update(norm._parameters)
    made._buffers.update(norm._buffers)
    return made.train(norm.training)
