"""The codebook of VQ-KD: unit vectors that follow the means of what they get, and the k-means that starts them.

Peng et al., BEiT v2 (arXiv:2208.06366). Official code: microsoft/unilm@768a3c87 beit2/, norm_ema_quantizer.py (MIT).
Not used here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import gather_over_ranks, get_rank, get_world_size, mean_over_ranks

KMEANS_ITERATIONS = 10


def kmeans_on_sphere(samples: Tensor, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Spherical k-means: `count` unit vectors, and how many samples are nearest to each in the last iteration.

    It starts from samples that are drawn. A mean without samples stays as it is.

    Args:
        samples: unit vectors [N, D].
        generator: on the samples' device; None: torch's global one, as officially.
    """
    if len(samples) >= count:
        drawn = torch.randperm(len(samples), generator=generator, device=samples.device)[:count]
    else:
        drawn = torch.randint(len(samples), (count,), generator=generator, device=samples.device)
    means = samples[drawn]
    sizes = torch.zeros(count, dtype=torch.long, device=samples.device)
    for _ in range(KMEANS_ITERATIONS):
        nearest = (samples @ means.T).argmax(1)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(means).index_add_(0, nearest, samples)
        means = torch.where(sizes[:, None] > 0, F.normalize(sums, dim=1), means)
    return means, sizes


class Quantizer(nn.Module):
    """A codebook of unit vectors, which follow the mean of what was assigned to them.

    A code to which a batch assigns nothing stays as it is; the official code does not revive such codes either.
    """

    codes: Tensor
    usage: Tensor
    is_started: Tensor

    def __init__(self, count: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", F.normalize(torch.randn(count, dim), dim=1))
        self.register_buffer("usage", torch.zeros(count))
        """A moving average of how many patches of a batch each code gets."""
        self.register_buffer("is_started", torch.zeros(1, dtype=torch.bool))
        """Whether the codes are those of a k-means already."""

    def assign(self, features: Tensor) -> Tensor:
        """The nearest code of each vector: [..., D] -> int64 [...]."""
        unit = F.normalize(features, dim=-1)
        # Squared distances without the common term |unit|^2.
        return (self.codes.square().sum(1) - 2 * unit @ self.codes.T).argmin(-1)

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [..., D] with a straight-through gradient, tokens int64 [...], and the commitment loss.

        In training the codebook then takes its next value. The first batch starts it, by k-means.
        """
        unit = F.normalize(features, dim=-1)
        flat = unit.detach().flatten(0, -2)
        if self.training and not bool(self.is_started):
            self._start(flat, generator)
        tokens = self.assign(features)
        codes = self.codes[tokens]
        if self.training:
            self._follow(flat, tokens.flatten())
        return unit + (codes - unit).detach(), tokens, F.mse_loss(unit, codes)

    def count_usage(self, counts: Tensor) -> None:
        """Update `usage` by how many patches of a batch each code got, float [count]."""
        self.usage.mul_(self.decay).add_(counts, alpha=1 - self.decay)

    @torch.no_grad()
    def _start(self, unit: Tensor, generator: torch.Generator | None) -> None:
        means, _ = kmeans_on_sphere(gather_over_ranks(unit), len(self.codes), generator)
        if get_world_size() > 1:  # the first process's codes for all
            means = mean_over_ranks(means * (get_rank() == 0)) * get_world_size()
        self.codes.copy_(means)
        self.is_started.fill_(True)

    @torch.no_grad()
    def _follow(self, unit: Tensor, tokens: Tensor) -> None:
        chosen = F.one_hot(tokens, len(self.codes)).to(unit.dtype)
        counts = mean_over_ranks(chosen.sum(0)) * get_world_size()
        means = F.normalize(mean_over_ranks(chosen.T @ unit), dim=1)
        self.count_usage(counts)
        target = torch.where(counts[:, None] > 0, means, self.codes)
        self.codes.copy_(F.normalize(self.decay * self.codes + (1 - self.decay) * target, dim=1))
