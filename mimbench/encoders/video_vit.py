"""A ViT for clips: cubes of space and time, which attend to each other jointly (VideoMAE)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.compute.blocks import run_block
from mimbench.contract import Config, Depth, Encoder, Features, InputError, added
from mimbench.encoders.attention import attention_of_each
from mimbench.encoders.blocks import transformer_blocks
from mimbench.encoders.inflation import Rule, inflate, is_of_images
from mimbench.optim.layers import vit_layer


class VideoViTConfig(Config):
    """The defaults are VideoMAE's ViT-B/16 with cubes of 2 frames (MCG-NJU/VideoMAE@14ef8d85, modeling_pretrain.py)."""

    patch_size: int = Field(16, ge=1)
    tubelet: int = Field(2, ge=1)
    """Frames per cube."""
    embed_dim: int = Field(768, ge=2)
    depth: Depth = 12
    num_heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    position: Literal["sinusoid", "separate"] = "sinusoid"
    """sinusoid: fixed, along the row-major index of all cubes (VideoMAE). separate: a learned table for space and one
    for time, which are added (MAE-ST, arXiv:2205.09113)."""
    class_token: bool = False
    layer_scale: float | None = Field(None, gt=0)
    """Initial value of LayerScale; absent: none."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Rate of the last block; the first one has 0."""
    inflation: Rule = added("mean")
    """How weights of an image ViT, if pretrain.start names some, become those of cubes: mean or centre, see `inflate`
    in mimbench/encoders/inflation.py."""


class VideoViT(Encoder):
    """A ViT with joint attention over the cubes of a clip, built of timm's blocks."""

    kind: ClassVar[str] = "video-vit"
    can: frozenset[str] = frozenset(
        {
            *("clips", "mask-tokens", "separate-patches", "one-grid", "visible-only", "class-token"),
            *("drop-path", "grad-checkpointing", "attention"),
        }
    )
    version: ClassVar[str] = "1"
    Config = VideoViTConfig
    config: VideoViTConfig

    body: _Body

    def __init__(self, config: VideoViTConfig, *, image_size: int, in_channels: int, frames: int = 1) -> None:
        super().__init__(config, image_size=image_size, in_channels=in_channels, frames=frames)
        self.body = _Body(config, self.grid, in_channels)
        self.grad_checkpointing = False

    def set_sizes(self) -> None:
        config = self.config
        if self.frames == 1:
            raise InputError("a video-vit encoder takes clips; set input.frames to the frames of the data's clips")
        if self.image_size % config.patch_size or self.frames % config.tubelet:
            raise InputError(
                f"cubes of {config.tubelet} frames of {config.patch_size} px do not tile clips of {self.frames} frames "
                f"of {self.image_size} px; change input.frames, input.image_size, encoder.tubelet or encoder.patch_size"
            )
        if config.embed_dim % config.num_heads:
            raise InputError(
                f"encoder.embed_dim {config.embed_dim} is not a multiple of encoder.num_heads {config.num_heads}"
            )
        self.embed_dim = self.out_dim = config.embed_dim
        self.patch_size = self.stride = config.patch_size
        self.tubelet, self.num_layers = config.tubelet, config.depth
        self.num_prefix_tokens = int(config.class_token)
        if not config.class_token:
            self.can -= {"class-token"}

    def embed(self, images: Tensor) -> Tensor:
        return self.body.patch_embed["proj"](images).permute(0, 2, 3, 4, 1)

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        indices = self.layer_indices(layers)
        outputs = list(islice(self._block_outputs(tokens, keep), max(indices) + 1))
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.body.norm(outputs[-1])
        grid = self.grid if keep is None else (1, keep.shape[1])
        return [self._split(outputs[index], grid) for index in indices]

    def attention(self, images: Tensor) -> Iterator[Tensor]:
        return attention_of_each(self._block_outputs(self.embed(images), None))

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of an image ViT are inflated."""
        if not is_of_images(weights):
            return dict(weights)
        return inflate(weights, self.state_dict(), self.config.inflation)

    def layer_of(self, parameter: str) -> int:
        return vit_layer(parameter.removeprefix("body."), self.num_layers)

    def no_weight_decay(self) -> set[str]:
        return {f"body.{name}" for name, _ in self.body.named_parameters(recurse=False)}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def _block_outputs(self, tokens: Tensor, keep: Tensor | None) -> Iterator[Tensor]:
        """Run block by block: the output [B, P + N, D] of each, for all cubes or those of `keep`."""
        x = tokens.flatten(1, 3) + self.body.positions()
        if keep is not None:
            x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        if self.config.class_token:
            x = torch.cat((self.body.class_token().expand(len(x), -1, -1), x), 1)
        recompute = self.grad_checkpointing and self.training
        for block in self.body.blocks:
            x = run_block(block, x, recompute=recompute)
            yield x

    def _split(self, x: Tensor, grid: tuple[int, ...]) -> Features:
        prefix, cubes = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return Features(cubes.mean(1), cubes.transpose(1, 2).unflatten(2, grid), prefix)


class _Body(nn.Module):
    """The weights, by the names of the official code."""

    sinusoid: Tensor

    def __init__(self, config: VideoViTConfig, grid: tuple[int, ...], in_channels: int) -> None:
        """Initial weights are normal with 0.02, biases zero, as in VideoMAE's fine-tuning.

        grid: cubes by time, row and column.
        """
        super().__init__()
        dim, cube = config.embed_dim, (config.tubelet, config.patch_size, config.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(in_channels, dim, cube, cube)})
        self.is_learned = config.position == "separate"
        if self.is_learned:
            self.pos_embed_spatial = nn.Parameter(torch.empty(1, grid[1] * grid[2], dim))
            self.pos_embed_temporal = nn.Parameter(torch.empty(1, grid[0], dim))
        else:
            self.register_buffer("sinusoid", sinusoid_positions(math.prod(grid), dim), persistent=False)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
            if self.is_learned:
                self.pos_embed_class = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = transformer_blocks(
            dim,
            config.depth,
            config.num_heads,
            config.mlp_ratio,
            drop_path=config.drop_path,
            layer_scale=config.layer_scale,
            key_bias=False,
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def positions(self) -> Tensor:
        """[1, T' * h * w, D], in row-major order: all cubes of the first frames come first."""
        if not self.is_learned:
            return self.sinusoid
        return (self.pos_embed_temporal.unsqueeze(2) + self.pos_embed_spatial.unsqueeze(1)).flatten(1, 2)

    def class_token(self) -> Tensor:
        """[1, 1, D], with its position."""
        return self.cls_token + self.pos_embed_class if self.is_learned else self.cls_token


def sinusoid_positions(count: int, dim: int) -> Tensor:
    """Fixed positions [1, count, dim] along one axis: sines in even channels, cosines in odd ones.

    Computed in float64, as MCG-NJU/VideoMAE@14ef8d85 does, and rounded to float32.
    """
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64).unsqueeze(1) / 10000 ** (2 * (channel // 2) / dim)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return table.float().unsqueeze(0)
