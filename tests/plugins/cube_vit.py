"""An encoder of clips: a ViT with joint attention over cubes of space and time, as in VideoMAE (arXiv:2203.12602)."""

from __future__ import annotations

import math

import torch
from torch import nn

from mimbench.api import Config, Depth, Encoder, Features, InputError, init_truncated, patchify, transformer_blocks


class CubeViTConfig(Config):
    patch_size: int = 4
    tubelet: int = 2
    embed_dim: int = 32
    depth: Depth = 2
    num_heads: int = 2


class CubeViT(Encoder):
    """Cubes of `tubelet` frames, learned positions, no class token. With `tubelet` 1 it takes images too."""

    kind = "cube-vit"
    version = "1"
    can = frozenset({"mask-tokens", "separate-patches", "one-grid", "visible-only", "clips"})
    Config = CubeViTConfig
    config: CubeViTConfig

    def __init__(self, config, *, image_size, in_channels, frames=1):
        super().__init__(config, image_size=image_size, in_channels=in_channels, frames=frames)
        dim = config.embed_dim
        self.stem = nn.Linear(config.tubelet * config.patch_size**2 * in_channels, dim)
        self.position = nn.Parameter(0.02 * torch.randn(1, math.prod(self.grid), dim))
        self.blocks = transformer_blocks(dim, config.depth, config.num_heads)
        self.norm = nn.LayerNorm(dim)
        init_truncated(self)

    def set_sizes(self):
        config = self.config
        if self.image_size % config.patch_size or self.frames % config.tubelet:
            raise InputError(
                f"cubes of {config.tubelet} frames of {config.patch_size} px do not tile clips of {self.frames} frames "
                f"of {self.image_size} px; change input.frames, input.image_size or [encoder]"
            )
        self.embed_dim = self.out_dim = config.embed_dim
        self.patch_size = self.stride = config.patch_size
        self.tubelet, self.num_layers = config.tubelet, config.depth

    def embed(self, images):
        return self.stem(patchify(images, self.patch_size, self.tubelet))

    def forward_layers(self, tokens, layers=None, *, keep=None, final_norm=True):
        layers = self.layer_indices(layers)
        x, outputs = tokens.flatten(1, -2) + self.position, []
        if keep is not None:
            x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        for block in self.blocks[: max(layers) + 1]:
            x = block(x)
            outputs.append(x)
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.norm(outputs[-1])
        grid = self.grid if keep is None else (1, x.shape[1])
        return [Features.from_map(outputs[layer].mT.unflatten(2, grid)) for layer in layers]

    def layer_of(self, parameter):
        if parameter.startswith(("stem.", "position")):
            return 0
        return int(parameter.split(".")[1]) + 1 if parameter.startswith("blocks.") else self.num_layers + 1

    def no_weight_decay(self):
        return {"position"}
