"""Heads from frozen maps to depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import derive_seed, fork_rng
from mimbench_tasks.dense.depth.config import DepthConfig
from mimbench_tasks.dense.linear import build_head

_EPSILON = 0.1
"""Added to each bin, so that none has a share of 0."""
_DPT_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Channels of the four scales over those of the encoder: 128, 256, 512, 1024 for ViT-L in DINOv2's configuration."""


class DepthOutput(nn.Module):
    """Scores of bins [B, bins, h, w], or one value [B, 1, h, w] -> depth in m, [B, 1, h, w]."""

    centres: Tensor

    def __init__(self, config: DepthConfig, max_depth: float) -> None:
        super().__init__()
        self.is_binned, self.min_depth, self.max_depth = config.output == "bins", config.min_depth, max_depth
        low, high = config.min_depth, max_depth
        if config.spacing == "log":
            centres = torch.linspace(math.log(low), math.log(high), config.bins).exp()
        else:
            centres = torch.linspace(low, high, config.bins)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        if not self.is_binned:
            return scores.relu() + self.min_depth
        shares = scores.relu() + _EPSILON
        shares = shares / shares.sum(1, keepdim=True)
        return (shares * self.centres[:, None, None]).sum(1, keepdim=True)  # a product of matrices would be in bfloat16


class LinearDepth(nn.Module):
    """A linear layer on each patch, after batch normalisation if `config.batch_norm` is set.

    Its scores are enlarged. Enlarging the features would give the same: interpolation, whose weights sum to 1, commutes
    with the linear layer. With batch normalisation this holds in evaluation only: in training, the statistics would be
    those of the enlarged features.
    """

    def __init__(self, channels: int, config: DepthConfig, max_depth: float, seed: int) -> None:
        super().__init__()
        outputs = config.bins if config.output == "bins" else 1
        self.layer = build_head(channels, outputs, seed, batch_norm=config.batch_norm)
        self.upsample, self.output = config.upsample, DepthOutput(config, max_depth)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[B, D, h, w] per layer -> depth [B, 1, h * upsample, w * upsample]."""
        scores = self.layer(maps).float()
        size = [side * self.upsample for side in scores.shape[-2:]]
        return self.output(F.interpolate(scores, size, mode="bilinear", align_corners=False))


class _Residual(nn.Module):
    """Two convolutions with ReLU before each, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.second(self.first(maps.relu()).relu())


class _Fusion(nn.Module):
    """Adds a finer map to what comes from the coarser ones, and doubles the size."""

    def __init__(self, channels: int, *, takes_finer: bool) -> None:
        super().__init__()
        self.of_finer = _Residual(channels) if takes_finer else None
        self.of_sum = _Residual(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, coarse: Tensor, finer: Tensor | None = None) -> Tensor:
        if self.of_finer is not None and finer is not None:
            coarse = coarse + F.interpolate(self.of_finer(finer), coarse.shape[-2:], mode="bilinear")
        whole = self.of_sum(coarse)
        return self.project(F.interpolate(whole, scale_factor=2, mode="bilinear", align_corners=True))


class DPTDepth(nn.Module):
    """DPT's head on four maps of one size (arXiv:2103.13413), as facebookresearch/dinov2@d5c376b5 dpt_head.py.

    A map that has the class token appended is first projected to half its channels, with GELU: the readout "project".
    """

    def __init__(self, dims: Sequence[int], config: DepthConfig, max_depth: float, seed: int) -> None:
        super().__init__()
        width = config.channels
        with fork_rng(derive_seed("dpt head", seed)):
            readout = [dim // 2 if config.class_token else dim for dim in dims]
            self.readouts = nn.ModuleList(
                nn.Sequential(nn.Conv2d(dim, dim // 2, 1), nn.GELU()) if config.class_token else nn.Identity()
                for dim in dims
            )
            widths = [max(8, round(dim * share)) for dim, share in zip(readout, _DPT_WIDTHS, strict=True)]
            self.projects = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(readout, widths, strict=True))
            self.resizes = nn.ModuleList(
                [
                    nn.ConvTranspose2d(widths[0], widths[0], 4, 4),
                    nn.ConvTranspose2d(widths[1], widths[1], 2, 2),
                    nn.Identity(),
                    nn.Conv2d(widths[3], widths[3], 3, 2, 1),
                ]
            )
            self.convolutions = nn.ModuleList(nn.Conv2d(each, width, 3, padding=1, bias=False) for each in widths)
            self.fusions = nn.ModuleList(_Fusion(width, takes_finer=index > 0) for index in range(4))
            self.project = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
            outputs = config.bins if config.output == "bins" else 1
            self.narrow = nn.Conv2d(width, width // 2, 3, padding=1)
            last = nn.Conv2d(32, outputs, 1)
            self.last = nn.Sequential(nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), last)
        if config.output == "regression":  # else a head whose first values are negative would never learn
            last.bias = nn.Parameter(torch.full((1,), max_depth / 4))
        self.output = DepthOutput(config, max_depth)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps [B, D, h, w] -> depth [B, 1, 16 h, 16 w]. An odd h or w counts as one more."""
        levels = [
            convolution(resize(project(readout(each))))
            for each, readout, project, resize, convolution in zip(
                maps, self.readouts, self.projects, self.resizes, self.convolutions, strict=True
            )
        ]
        fused = self.fusions[0](levels[3])
        for fusion, finer in zip(self.fusions[1:], levels[2::-1], strict=True):
            fused = fusion(fused, finer)
        narrow = self.narrow(self.project(fused))
        whole = F.interpolate(narrow, scale_factor=2, mode="bilinear", align_corners=True)
        return self.output(self.last(whole).float())


def build_depth_head(dims: Sequence[int], config: DepthConfig, max_depth: float, seed: int) -> nn.Module:
    """The head of `config`, with weights drawn from `seed`. dims: channels of each map."""
    if config.head == "dpt":
        return DPTDepth(dims, config, max_depth, seed)
    return LinearDepth(sum(dims), config, max_depth, seed)
