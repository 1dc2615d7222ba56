"""Swin Transformer (arXiv:2103.14030) on timm's SwinTransformer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.contract import Config, Depth, Encoder, Features, InputError, added
from mimbench.encoders.blocks import sincos_positions
from mimbench.encoders.swin_blocks import shifted_window_block
from mimbench.encoders.visible_cells import encode_cells
from mimbench.masks import resize_mask
from mimbench.optim.layers import swin_layer

Side = Annotated[int, Field(ge=1)]


class SwinConfig(Config):
    """A Swin; the defaults are Swin-B. Patch norm and biases are on, absolute positions off, as official."""

    patch_size: int = Field(4, ge=1)
    embed_dim: int = Field(128, ge=1)
    """Channels of the first stage; each further one doubles them and halves the grid."""
    depths: tuple[Depth, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: Side | tuple[Side, ...] = 7
    """Side of an attention window, tokens; or one per stage. A grid that is not larger shrinks it to itself and drops
    the shift."""
    mlp_ratio: float = Field(4.0, gt=0)
    drop_path: float = Field(0.0, ge=0, lt=1)
    shift: bool = added(True)
    """Shift the windows of every second block by half their side."""
    position: Literal["relative", "sincos-and-relative"] = added("relative")
    """relative: a table in each block; sincos-and-relative: also fixed 2-D sin-cos positions of the tokens."""
    norm_eps: float = added(1e-5, gt=0)
    """Added to the variance in each LayerNorm."""

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of the window in each stage."""
        return self.window if isinstance(self.window, tuple) else (self.window,) * len(self.depths)


class Swin(Encoder):
    """A Swin Transformer. `embed` includes the patch norm: SimMIM's mask token comes after it."""

    kind: ClassVar[str] = "swin"
    can: frozenset[str] = frozenset(
        {
            "mask-tokens",
            "separate-patches",
            "normed-tokens",
            "visible-cells",
            "mixed-images",
            "pyramid",
            "any-size",
            "drop-path",
            "grad-checkpointing",
        }
    )
    version: ClassVar[str] = "1"
    Config = SwinConfig
    config: SwinConfig

    def __init__(self, config: SwinConfig, *, image_size: int, in_channels: int) -> None:
        from timm.models.swin_transformer import SwinTransformer

        from mimbench.encoders.biased_attention import with_forms

        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.body = SwinTransformer(
            img_size=image_size,
            patch_size=config.patch_size,
            in_chans=in_channels,
            num_classes=0,
            global_pool="",
            embed_dim=config.embed_dim,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=config.window if isinstance(config.window, int) else [(side, side) for side in config.window],
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),
        )
        if config.position == "sincos-and-relative":
            positions = sincos_positions(self.grid, config.embed_dim)[:, 1:]
            self.body.absolute_pos_embed = nn.Parameter(positions, requires_grad=False)
        if not config.shift:
            for block in (block for stage in self.body.layers for block in stage.blocks):
                block.target_shift_size = block.shift_size = (0, 0)
                block.attn_mask = None
        with_forms(self.body)
        mark_blocks(block for stage in self.body.layers for block in stage.blocks)
        self.grad_checkpointing = False

    def set_sizes(self) -> None:
        config = self.config
        _check(config, self.image_size)
        halvings = len(config.depths) - 1
        self.embed_dim = config.embed_dim
        self.out_dim = config.embed_dim * 2**halvings
        self.patch_size = config.patch_size
        self.stride = config.patch_size * 2**halvings
        self.num_layers = sum(config.depths)

    def embed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"an image of {height} x {width} px is not a multiple of the patch, {self.patch_size} px")
        return self.body.patch_embed.norm(self.body.patch_embed.proj(images).permute(0, 2, 3, 1))

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        """Blocks count through the stages; a block's map has the resolution and channels of its stage."""
        self.check_keep(keep)
        indices = self.layer_indices(layers)
        outputs = self._blocks(tokens, last=max(indices))
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.body.norm(outputs[-1])
        return [Features.from_map(outputs[index].permute(0, 3, 1, 2)) for index in indices]

    def encode_mixed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.body.norm(self._blocks(tokens, mask=mask)[-1]).permute(0, 3, 1, 2)

    def encode_visible(self, tokens: Tensor, keep: Tensor) -> Tensor:
        if keep.shape[1] == 0:
            return tokens.new_zeros(len(tokens), 0, self.out_dim)
        return self.body.norm(
            encode_cells(self.body.layers, self._positioned(tokens), keep, recompute=self._recomputes)
        )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """One map per stage, each normalised over its channels; ceil(H / s) rows if stride s does not divide H.

        Swin's detectors give each stage a LayerNorm; here it has no weights of its own, since the projection that
        every detector starts with takes their part. The last map passes the final norm, as `encode` does.
        """
        outputs = self._blocks(self.embed(images))
        ends = [blocks - 1 for blocks in accumulate(self.config.depths)]
        maps = [F.layer_norm(outputs[end], outputs[end].shape[-1:], eps=self.config.norm_eps) for end in ends[:-1]]
        return [x.permute(0, 3, 1, 2) for x in (*maps, self.body.norm(outputs[-1]))]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return tuple(self.patch_size * 2**stage for stage in range(len(self.config.depths)))

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.config.depths)))

    def layer_of(self, parameter: str) -> int:
        return swin_layer(parameter.removeprefix("body."), self.config.depths, downsample="start")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def _blocks(self, tokens: Tensor, last: int | None = None, mask: Tensor | None = None) -> list[Tensor]:
        """Every block's output [B, h, w, D], up to block `last`, before the final norm.

        mask: as in `encode_mixed`.
        """
        x, outputs = self._positioned(tokens), []
        for stage in self.body.layers:
            x = stage.downsample(x)
            here = None if mask is None else resize_mask(mask, tuple(x.shape[1:3]))
            for block in stage.blocks:
                x = shifted_window_block(block, x, here, recompute=self._recomputes)
                outputs.append(x)
                if len(outputs) - 1 == last:
                    return outputs
        return outputs

    @property
    def _recomputes(self) -> bool:
        return self.grad_checkpointing and self.training

    def _positioned(self, tokens: Tensor) -> Tensor:
        """Tokens [B, h, w, D] with absolute positions, if the encoder has some; resampled for another grid."""
        if self.config.position == "relative":
            return tokens
        positions, grid = self.body.absolute_pos_embed, tuple(tokens.shape[1:3])
        if grid != self.grid:
            from timm.layers import resample_abs_pos_embed

            positions = resample_abs_pos_embed(
                positions, new_size=list(grid), old_size=list(self.grid), num_prefix_tokens=0
            )
        return tokens + positions.unflatten(1, grid)


def _check(config: SwinConfig, image_size: int) -> None:
    depths, heads, patch, windows = config.depths, config.num_heads, config.patch_size, config.windows
    if not depths or min(depths) < 1 or len(depths) != len(heads) or min(heads) < 1:
        raise InputError(
            f"encoder.depths {list(depths)} and encoder.num_heads {list(heads)} must have "
            "one number of 1 or more per stage"
        )
    if len(windows) != len(depths):
        raise InputError(f"encoder.window {list(windows)} must be one number, or one per stage of {list(depths)}")
    if image_size % patch:
        raise InputError(
            f"image size {image_size} px is not a multiple of the patch size {patch} px; "
            "change input.image_size or encoder.patch_size"
        )
    for stage, (stage_heads, window) in enumerate(zip(heads, windows, strict=True)):
        dim, grid = config.embed_dim * 2**stage, image_size // patch // 2**stage
        if dim % stage_heads:
            raise InputError(f"encoder.num_heads {stage_heads} does not divide the {dim} channels of stage {stage}")
        if image_size % (patch * 2**stage):
            raise InputError(
                f"image size {image_size} px is not a multiple of {patch * 2**stage} px, the stride of stage {stage}; "
                "change input.image_size, or give encoder.depths fewer stages"
            )
        if grid > window and grid % window:
            raise InputError(
                f"encoder.window {window} does not divide the {grid} x {grid} grid of stage {stage}; "
                "change encoder.window or input.image_size"
            )
