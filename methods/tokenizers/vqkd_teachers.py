"""Teachers of VQ-KD: what its decoder predicts at each patch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import InputError, patchify, read_weights
from mimbench_methods.maskfeat import hog

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_DIM = 64
"""Channels of an attention head in every ViT of CLIP."""
_PLACE = "method.vqkd.clip"


class HOGTeacher(nn.Module):
    """Histograms of oriented gradients: a stand-in that needs no weights, and knows nothing but pixels.

    A constant is added to each patch's histograms, so that a flat patch has a direction, too.
    """

    bins = 9
    constant = 0.1

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.cell = patch_size // 2 if patch_size % 2 == 0 else patch_size
        self.dim = self.bins * (patch_size // self.cell) ** 2 + 1

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, 3, H, W] -> [B, h, w, dim]."""
        histograms = hog(pixels.mean(1, keepdim=True), self.bins, self.cell)[:, 0] / self.cell**2
        patches = patchify(histograms, self.patch_size // self.cell)
        return torch.cat((patches, torch.full_like(patches[..., :1], self.constant)), -1)


class CLIPTeacher(nn.Module):
    """CLIP's image tower: each patch of the last layer, normed and projected to the space of CLIP's embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path, *, grid: int, quick_gelu: bool) -> None:
        """Raises InputError: the file is no image tower of CLIP under timm's names."""
        super().__init__()
        from timm.layers import resample_abs_pos_embed  # slow to import
        from timm.models.vision_transformer import VisionTransformer

        state = dict(_read_tower(path))
        kernel, positions, head = (state[name] for name in ("patch_embed.proj.weight", "pos_embed", "head.weight"))
        state.setdefault("head.bias", torch.zeros(len(head)))
        state["pos_embed"] = resample_abs_pos_embed(positions, new_size=[grid, grid], num_prefix_tokens=1)
        self.size, self.dim = grid * kernel.shape[-1], len(head)
        blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
        self.tower = VisionTransformer(
            img_size=self.size,
            patch_size=kernel.shape[-1],
            num_classes=self.dim,
            embed_dim=len(kernel),
            depth=len(blocks),
            num_heads=max(1, len(kernel) // HEAD_DIM),
            mlp_ratio=len(state["blocks.0.mlp.fc1.weight"]) / len(kernel),
            pre_norm=True,
            norm_layer="layernorm",
            act_layer="quick_gelu" if quick_gelu else "gelu",
        )
        _check_same(state, self.tower.state_dict(), path)
        self.tower.load_state_dict(state)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(CLIP_STD).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, 3, H, W] -> [B, h, w, dim]. They are resized to the tower's patches, if need be."""
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        patches = self.tower.forward_features((pixels - self.mean) / self.std)[:, 1:]
        return self.tower.head(patches).unflatten(1, self.tower.patch_embed.grid_size)


def _read_tower(path: Path) -> Mapping[str, Tensor]:
    try:
        state = read_weights(path).state
    except InputError as error:
        raise InputError(f"{_PLACE}: {error}") from error
    needed = ("patch_embed.proj.weight", "pos_embed", "head.weight", "norm_pre.weight", "blocks.0.mlp.fc1.weight")
    missing = next((name for name in needed if name not in state), None)
    if missing:
        raise InputError(
            f"{_PLACE}: {path} has no tensor {missing!r}; save the image tower of CLIP under timm's names, such as the "
            "state dict of timm's vit_base_patch16_clip_quickgelu_224"
        )
    return state


def _check_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    for name in sorted(state.keys() ^ expected.keys()):
        where = "an unknown tensor" if name in state else "no tensor"
        raise InputError(f"{_PLACE}: {path} has {where} {name!r}, unlike a ViT of CLIP in timm")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise InputError(f"{_PLACE}: {name!r} is {list(state[name].shape)} in {path}, not {list(value.shape)}")
