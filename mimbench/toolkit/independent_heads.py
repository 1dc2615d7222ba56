"""Heads that are trained together, each as if it were alone: none of them can end the training of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LARGEST_NORM = 1e8
"""Of the weights of a head that has not diverged."""


class IndependentHeads(nn.Module):
    """The part of a Trainable that holds several heads, which share no weight.

    Among several heads, one whose gradient is not finite or whose weights grow without limit counts as diverged. Its
    weights are 0 from then on. So a rate that is too high ends neither the training nor the other heads.

    Attributes:
        diverged: bool [H], by head.
    """

    diverged: Tensor

    def __init__(self, heads: Sequence[nn.Module], clip_grad: float | None = None) -> None:
        """clip_grad: limits the norm of the gradient of each head by itself."""
        super().__init__()
        self.clip_grad = clip_grad
        self.heads = nn.ModuleList(heads)
        self.register_buffer("diverged", torch.zeros(len(heads), dtype=torch.bool))
        counts = [len(list(head.parameters())) for head in heads]
        self._head_of = [index for index, count in enumerate(counts) for _ in range(count)]
        """The head of each parameter."""

    def finite(self, losses: Tensor) -> Tensor:
        """Losses of the heads, [H], with 0 for those that are not finite. A head alone keeps its loss."""
        return losses.where(losses.isfinite(), 0.0) if len(losses) > 1 else losses

    def before_update(self, progress: float) -> None:
        gradients = [parameter.grad for parameter in self.heads.parameters() if parameter.grad is not None]
        norms = self._norms(gradients)
        if self.clip_grad is not None:
            scales = (self.clip_grad / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, [scales[index] for index in self._head_of])
        self._drop(~norms.isfinite(), gradients)

    def after_step(self, progress: float) -> None:
        weights = [parameter.detach() for parameter in self.heads.parameters()]
        self._drop(~(self._norms(weights) < LARGEST_NORM), weights)

    def _norms(self, tensors: list[Tensor]) -> Tensor:
        """Norm over all tensors of each head, [H]; one tensor per parameter."""
        norms = torch.stack(torch._foreach_norm(tensors)).float()
        index = torch.tensor(self._head_of, device=norms.device)
        return norms.new_zeros(len(self.heads)).index_add_(0, index, norms.square()).sqrt()

    def _drop(self, is_broken: Tensor, tensors: list[Tensor]) -> None:
        """Note which heads have diverged, and set their tensors to 0, without a look at values, which makes GPUs wait.

        A head alone is left as it is: the engine then stops the training, and says what to change.
        """
        if len(self.heads) > 1:
            self.diverged |= is_broken
            for index, tensor in zip(self._head_of, tensors, strict=True):
                tensor.masked_fill_(self.diverged[index], 0.0)
