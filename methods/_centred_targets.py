"""What iBOT learns: a teacher's logits, centred and sharpened to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mimbench.api import mean_over_ranks
from mimbench_methods._slow_teachers import EncoderTeacher


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


def loss_of_patches(logits: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Cross-entropy of masked patches: mean over each image, then over images. An image without any counts as 0.

    logits, target: [B, N, K], the target as probabilities. masked: bool [B, N].
    """
    error = -(target * logits.log_softmax(-1)).sum(-1)
    return ((error * masked).sum(1) / masked.sum(1).clamp(min=1)).mean()


class CentredTargets(EncoderTeacher):
    """A method with a teacher, whose logits are centred by their means over past batches.

    Attributes:
        centre: [K], of class tokens.
        patch_centre: [K], of patches.
    """

    centre: Tensor
    patch_centre: Tensor

    def start_centres(self, dim: int) -> None:
        """Zeros, for `dim` logits."""
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("patch_centre", torch.zeros(dim))

    @torch.no_grad()
    def follow_means(self, logits: Tensor, keep: float) -> None:
        """Move the centres towards the means over the batch, in place.

        Args:
            logits: of all tokens of whole images, the class token first and all patches last, [B, P + N, K].
            keep: what the centres keep of themselves, in [0, 1].
        """
        patches = logits[:, self.encoder.num_prefix_tokens :]  # all of them, masked or not
        means = mean_over_ranks(torch.stack((logits[:, 0].mean(0), patches.mean((0, 1)))))
        for one, mean in zip((self.centre, self.patch_centre), means, strict=True):
            one.lerp_(mean.to(one.dtype), 1 - keep)
