"""Measures of layers, in float64: similarity of layers, spectrum of maps, similarity of patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_IMAGES = 4
"""The unbiased estimator divides by N (N - 3)."""
_FLOOR = 1e-6
"""Added to amplitudes before the logarithm, as cl-vs-mim@eafe516 representation_analysis.ipynb does."""


def debiased_cka(layers: Sequence[Tensor]) -> Tensor:
    """Linear CKA of any two layers, [L, L]: 1 for equal features up to rotation and scale, 0 for independent ones.

    Kornblith et al., arXiv:1905.00414, with the unbiased estimator of HSIC (Song et al., JMLR 13, 2012, equation 5).
    The biased one is d / (n + d) for independent Gaussians of d dimensions and n images. This one is 0 on average, and
    may be slightly negative. A layer without variance gets 0.

    Args:
        layers: features of the same N images, [N, D] each, of any D; N is 4 or more.
    """
    kernels = torch.stack([_centred_kernel(features.double()) for features in layers]).flatten(1)
    products = kernels @ kernels.T
    scale = products.diagonal().clamp_min(0).sqrt()
    scale = scale[:, None] * scale[None, :]
    return torch.where(scale > 0, products / torch.where(scale > 0, scale, 1), 0.0)


def _centred_kernel(features: Tensor) -> Tensor:
    """The kernel of features [N, D] without its diagonal, centred so that products of two are unbiased: [N, N]."""
    count = len(features)
    centred = features - features.mean(0)
    kernel = (centred @ centred.T).fill_diagonal_(0)
    rows = kernel.sum(1) / (count - 2)
    kernel = kernel - rows[:, None] - rows[None, :] + rows.sum() / (count - 1)
    return kernel.fill_diagonal_(0)


def spectrum(maps: Tensor) -> Tensor:
    """Log-amplitude of each frequency relative to that of the mean, nats: [B, K], 0 at frequency 0.

    Frequencies are those on the half diagonal, (k, k) for k from 0 to (side - 1) // 2, and the amplitude's logarithm is
    averaged over channels, as in cl-vs-mim@eafe516 representation_analysis.ipynb (arXiv:2305.00729). White noise has
    (ln 2) / 2 = 0.35 at each frequency above 0, since the amplitude of the mean is real and the others are complex.

    Args:
        maps: [B, D, h, w].
    """
    frequencies = torch.arange((min(maps.shape[-2:]) - 1) // 2 + 1, device=maps.device)
    amplitudes = torch.fft.fft2(maps.double())[..., frequencies, frequencies].abs()
    logs = (amplitudes + _FLOOR).log().mean(1)
    return logs - logs[:, :1]


def patch_similarity(patches: Tensor) -> Tensor:
    """Mean cosine similarity of two different patches of an image, [B], from -1 to 1; 1 for a single patch.

    Args:
        patches: [B, N, D].
    """
    count = patches.shape[1]
    if count == 1:
        return patches.new_ones(len(patches), dtype=torch.float64)
    total = F.normalize(patches.double(), dim=-1).sum(1).square().sum(-1)
    return (total - count) / (count * (count - 1))
