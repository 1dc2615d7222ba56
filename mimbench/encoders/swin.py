"""Swin Transformer (arXiv:2103.14030) on timm's SwinTransformer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimbench.contract import Config, Depth, Encoder, Features, InputError
from mimbench.encoders.windows import partition, unpartition
from mimbench.optim.layers import swin_layer

if TYPE_CHECKING:  # timm takes longer to import than torch, and only building a Swin needs it
    from timm.models.swin_transformer import SwinTransformerBlock


class SwinConfig(Config):
    """A Swin; the defaults are Swin-B. Patch norm and biases are on, absolute positions off, as official."""

    patch_size: int = Field(4, ge=1)
    embed_dim: int = Field(128, ge=1)
    """Channels of the first stage; each further one doubles them and halves the grid."""
    depths: tuple[Depth, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = Field(7, ge=1)
    """Side of an attention window, tokens. A grid that is not larger shrinks it to itself and drops the shift."""
    mlp_ratio: float = Field(4.0, gt=0)
    drop_path: float = Field(0.0, ge=0, lt=1)


class Swin(Encoder):
    """A Swin Transformer. `embed` includes the patch norm: SimMIM's mask token comes after it."""

    kind: ClassVar[str] = "swin"
    can: frozenset[str] = frozenset(
        {"mask-tokens", "separate-patches", "pyramid", "any-size", "drop-path", "grad-checkpointing"}
    )
    version: ClassVar[str] = "1"
    Config = SwinConfig
    config: SwinConfig

    def __init__(self, config: SwinConfig, *, image_size: int, in_channels: int) -> None:
        from timm.models.swin_transformer import SwinTransformer

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
            window_size=config.window,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
        )
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

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """One map per stage, each normalised over its channels; ceil(H / s) rows if stride s does not divide H.

        Swin's detectors give each stage a LayerNorm; here it has no weights of its own, since the projection that
        every detector starts with takes their part. The last map passes the final norm, as `encode` does.
        """
        outputs = self._blocks(self.embed(images))
        ends = [blocks - 1 for blocks in accumulate(self.config.depths)]
        maps = [F.layer_norm(outputs[end], outputs[end].shape[-1:]) for end in ends[:-1]]
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

    def _blocks(self, tokens: Tensor, last: int | None = None) -> list[Tensor]:
        """Every block's output [B, h, w, D], up to block `last`, before the final norm."""
        x, outputs = tokens, []
        for stage in self.body.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                run = partial(shifted_window_block, block)
                recompute = self.grad_checkpointing and self.training
                x = checkpoint(run, x, use_reentrant=False) if recompute else run(x)
                outputs.append(x)
                if len(outputs) - 1 == last:
                    return outputs
        return outputs


def shifted_window_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Run timm's `block` on a grid [B, h, w, D] of any size.

    On another grid than it was built for, the block keeps its window, and hence its position table; it shifts where
    the grid is larger than the window. Padding, up to whole windows, is hidden from attention.
    """
    grid = tuple(x.shape[1:3])
    window, shift = block.attn.window_size, [0, 0]
    whole = all(side % length == 0 for side, length in zip(grid, window, strict=True))
    if whole and grid == tuple(block.input_resolution):
        return block(x)
    if any(block.target_shift_size):
        shift = [length // 2 if side > length else 0 for side, length in zip(grid, window, strict=True)]
    down, right = (-side % length for side, length in zip(grid, window, strict=True))
    y = F.pad(block.norm1(x), (0, 0, 0, right, 0, down))
    padded = tuple(y.shape[1:3])
    parts, _ = partition(y.roll((-shift[0], -shift[1]), (1, 2)), window)
    mask = None if whole and not any(shift) else window_mask(grid, window, shift, x)
    y = unpartition(block.attn(parts, mask=mask), window, padded, padded).roll(shift, (1, 2))
    x = x + block.drop_path1(y[:, : grid[0], : grid[1]])
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def window_mask(grid: tuple[int, ...], window: tuple[int, ...], shift: Sequence[int], like: Tensor) -> Tensor:
    """[windows, N, N], 0 if one token may attend to another, else -100; device and dtype of `like`.

    Tokens that only the cyclic shift brings together do not attend to each other, and none attends to the padding.
    """
    regions = []
    for side, length, moved in zip(grid, window, shift, strict=True):
        padded = side + -side % length
        place = torch.arange(padded, device=like.device)
        wrapped = place >= padded - moved
        regions.append(wrapped + 2 * ((place + moved) % padded >= side).long())
    region = (4 * regions[0][:, None] + regions[1]).to(like.dtype)
    parts, _ = partition(region[None, :, :, None], window)
    return (parts != parts.transpose(1, 2)).to(like.dtype) * -100.0


def build_blocks(
    depth: int, *, dim: int, grid: tuple[int, int], num_heads: int, window: int, mlp_ratio: float = 4.0
) -> nn.ModuleList:
    """`depth` Swin blocks of one stage for `shifted_window_block`; every second one shifts its windows."""
    from timm.models.swin_transformer import SwinTransformerBlock

    blocks = nn.ModuleList(
        SwinTransformerBlock(
            dim=dim,
            input_resolution=grid,
            num_heads=num_heads,
            window_size=window,
            shift_size=window // 2 if index % 2 else 0,
            mlp_ratio=mlp_ratio,
        )
        for index in range(depth)
    )
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return blocks


def _check(config: SwinConfig, image_size: int) -> None:
    depths, heads, patch, window = config.depths, config.num_heads, config.patch_size, config.window
    if not depths or min(depths) < 1 or len(depths) != len(heads) or min(heads) < 1:
        raise InputError(
            f"encoder.depths {list(depths)} and encoder.num_heads {list(heads)} must have "
            "one number of 1 or more per stage"
        )
    if image_size % patch:
        raise InputError(
            f"image size {image_size} px is not a multiple of the patch size {patch} px; "
            "change input.image_size or encoder.patch_size"
        )
    for stage, stage_heads in enumerate(heads):
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
