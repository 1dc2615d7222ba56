"""Vision Transformers: timm's Beit (relative position bias) and VisionTransformer (absolute positions)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mimbench.contract import Config, Depth, Encoder, Features, InputError, added
from mimbench.encoders.attention import attention_of_each
from mimbench.encoders.position_tables import resize_absolute
from mimbench.encoders.rope import edge_rotary_table, rotary_table, with_idle
from mimbench.encoders.vit_body import build_body, check_form, further_blocks
from mimbench.encoders.windows import Windows, add_positions, windowed_block
from mimbench.optim.layers import vit_layer

Grid = tuple[int, ...]
OWN_TABLES = ("relative-per-block", "learned-and-relative", "sincos-rows-first-and-relative")
"""Positions with one bias table per block, which are for image_size alone."""


class ViTConfig(Config):
    """A ViT; "base", "large" and so on are recipes, not names."""

    patch_size: int = Field(16, ge=1)
    embed_dim: int = Field(768, ge=4)
    depth: Depth = Field(12, ge=1)
    num_heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    position: Literal[
        "relative",
        "relative-per-block",
        "sincos",
        "sincos-rows-first",
        "sincos-rows-first-and-relative",
        "learned",
        "learned-and-relative",
        "rope",
        "learned-and-rope",
        "edge-rope",
    ] = "relative"
    """relative: one bias table shared by all blocks (SimMIM, BEiT); relative-per-block: one table per block, as those
    two fine-tune, at image_size alone; sincos: fixed (MAE); sincos-rows-first: the same with the channels of rows
    before those of columns (CAE); learned: the first ViT; learned-and-relative: learned, and one table per block as
    well, zero at first, at image_size alone (MAE's ViT as mmsegmentation fine-tunes it);
    sincos-rows-first-and-relative: the same tables beside fixed positions (CAE's ViT as it is fine-tuned); rope:
    queries and keys are rotated by their patch's row and column (DINOv3); learned-and-rope: both, as EVA-02; edge-rope:
    rotated by other angles, and so are prefix tokens, which lie on the edges of the visible patches (CAPI)."""
    position_resize: Literal["antialiased", "dino"] = added("antialiased")
    """Absolute positions at another grid: antialiased bicubic; or, as DINO, plain bicubic with scale (n + 0.1) / N."""
    rope_base: float = added(100.0, gt=0)
    """rope: the longest period is about this many times the shortest; see mimbench/encoders/rope.py."""
    class_token: bool = added(True)
    """False: without a class token; not for relative and relative-per-block positions."""
    class_tokens: int = added(1, ge=1, le=1000)
    """Class tokens, if there are any, each with a position of its own (Pixio: 8); more than one is not for relative
    positions, shared or per block. Tasks that take the class token get their mean."""
    registers: int = added(0, ge=0, le=1000)
    """Register tokens (arXiv:2309.16588), learned and without positions, except for edge-rope; not for relative ones,
    shared or per block."""
    norm: Literal["layer", "rms"] = added("layer")
    """layer: LayerNorm. rms: RMSNorm with epsilon 1e-5, the final one without weights; not for relative positions."""
    bias: bool = added(True)
    """False: linear layers of the blocks have no bias; not for relative positions."""
    layer_scale: float | None = Field(None, gt=0)
    """Initial value of LayerScale; absent: none."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    drop_path_rule: Literal["rising", "constant"] = added("rising")
    """rising: drop_path is the rate of the last block, and the first one has 0. constant: that of every block."""
    attention_dropout: float = added(0.0, ge=0, lt=1)
    """Share of the attention weights that training zeroes."""


class ViT(Encoder):
    """A ViT. Blocks attend globally, or in windows for dense use (`use_windows`)."""

    kind: ClassVar[str] = "vit"
    can: frozenset[str] = frozenset(
        {
            *("mask-tokens", "separate-patches", "one-grid", "visible-only", "class-token"),
            *("any-size", "drop-path", "windows", "relative-positions", "grad-checkpointing", "attention"),
            "further-blocks",
            "block-input",
        }
    )
    version: ClassVar[str] = "1"
    Config = ViTConfig
    config: ViTConfig

    def __init__(self, config: ViTConfig, *, image_size: int, in_channels: int) -> None:
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.relative = config.position.startswith("relative")
        self.rotary = config.position.endswith("rope")
        self.body = build_body(config, self.grid, in_channels)
        self.windows: Windows | None = None
        self.grad_checkpointing = False
        self._indices: dict[tuple[Grid, torch.device], Tensor] = {}

    def set_sizes(self) -> None:
        config, image_size = self.config, self.image_size
        if image_size % config.patch_size:
            raise InputError(
                f"image size {image_size} px is not a multiple of the patch size {config.patch_size} px; "
                "change input.image_size or encoder.patch_size"
            )
        if config.embed_dim % config.num_heads:
            raise InputError(
                f"encoder.embed_dim {config.embed_dim} is not a multiple of encoder.num_heads {config.num_heads}"
            )
        self.embed_dim = self.out_dim = config.embed_dim
        self.patch_size = self.stride = config.patch_size
        self.num_layers = config.depth
        self.class_tokens = config.class_tokens * config.class_token
        self.num_prefix_tokens = self.class_tokens + config.registers
        self._check_positions()
        check_form(config)
        if not config.class_token:
            self.can -= {"class-token"}
        if config.position in OWN_TABLES:
            self.can -= {"visible-only", "windows", "any-size"}
        if config.position.startswith("relative") or config.position.endswith("rope"):
            self.can -= {"relative-positions"}

    def _check_positions(self) -> None:
        config = self.config
        if config.class_tokens > 1 and not config.class_token:
            raise InputError(f"encoder.class_tokens {config.class_tokens} needs encoder.class_token = true")
        if config.position.startswith("relative") and (config.registers or self.class_tokens != 1):
            option = "encoder.class_tokens" if config.class_tokens > 1 else "encoder.class_token = false"
            option = "encoder.registers" if config.registers else option
            raise InputError(
                f'{option} is not for encoder.position "{config.position}"; choose another position, such as "rope"'
            )
        if config.position_resize != "antialiased" and config.position not in ("sincos", "learned", "learned-and-rope"):
            raise InputError(
                f'encoder.position_resize does nothing for encoder.position "{config.position}"; leave it out'
            )
        if config.position.endswith("rope") and config.embed_dim // config.num_heads % 4:
            raise InputError(
                f'encoder.position "{config.position}" needs heads whose channels are a multiple of 4; these have '
                f"{config.embed_dim // config.num_heads}; change encoder.embed_dim or encoder.num_heads"
            )

    def embed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"an image of {height} x {width} px is not a multiple of the patch, {self.patch_size} px")
        return self.body.patch_embed.proj(images).permute(0, 2, 3, 1)

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        indices, grid = self.layer_indices(layers), tuple(tokens.shape[1:3])
        if keep is not None:
            self._require_shared_table("dropping patches")
        outputs = list(islice(self._block_outputs(tokens, keep), max(indices) + 1))
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.body.norm(outputs[-1])
        shape = grid if keep is None else (1, keep.shape[1])
        return [self._split(outputs[index], shape) for index in indices]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        tokens = self.embed(images)
        if self.windows is None:
            return [self.encode(tokens)]
        grid = tuple(tokens.shape[1:3])
        positions = self._positions(grid)
        x = tokens if positions is None else tokens + positions[:, self.class_tokens :].unflatten(1, grid)
        window = (self.windows.size, self.windows.size)
        biases = {size: self._patch_bias(size) for size in {grid, window}}
        for index, block in enumerate(self.body.blocks):
            size = grid if index in self.windows.global_blocks else window
            x = self._run(partial(windowed_block, block, size), x, biases[size])
        return [self.body.norm(x).permute(0, 3, 1, 2)]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return (self.patch_size,)

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return (self.embed_dim,)

    def use_windows(self, window: int, global_blocks: tuple[int, ...]) -> None:
        """Windowed `pyramid`, without the class token, as ViTDet (arXiv:2203.16527) does; 0: global attention."""
        self._require_shared_table("windowed attention")
        self.windows = Windows.checked(window, global_blocks, self.num_layers) if window else None
        for token in (self.body.cls_token, self.body.reg_token if self.config.registers else None):
            if token is not None:
                token.requires_grad_(self.windows is None)  # idle in windows, which distributed training forbids

    def add_relative_positions(self, image_size: int) -> None:
        """An encoder with relative or rotary positions keeps those."""
        if self.relative or self.rotary:
            return
        if self.windows is None:
            raise InputError("relative_positions are for windows: set window above 0, or relative_positions to false")
        side = -(-image_size // self.patch_size)
        for index, block in enumerate(self.body.blocks):
            length = side if index in self.windows.global_blocks else self.windows.size
            add_positions(block, (length, length))

    def layer_of(self, parameter: str) -> int:
        return vit_layer(parameter.removeprefix("body."), self.num_layers)

    def no_weight_decay(self) -> set[str]:
        """Prefix tokens and learned positions, not the relative-position tables: as SimMIM's and BEiT's scripts."""
        names = {"body.cls_token"} if self.config.class_token else set()
        if self.config.registers:
            names.add("body.reg_token")
        return names | ({"body.pos_embed"} if self.config.position.startswith("learned") else set())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def attention(self, images: Tensor) -> Iterator[Tensor]:
        return attention_of_each(self._block_outputs(self.embed(images), None))

    def further_blocks(self, drop_path: Sequence[float]) -> nn.ModuleList:
        return further_blocks(self.config, self.grid, drop_path)

    def run_blocks(self, blocks: Iterable[nn.Module], features: Features, *, final_norm: bool = True) -> Features:
        grid = tuple(features.dense.shape[2:])
        x, bias = features.sequence, self._bias(grid)
        for block in blocks:
            x = self._run_block(block, x, bias)
        return self._split(self.body.norm(x) if final_norm else x, grid)

    def block_input(self, tokens: Tensor, *, keep: Tensor | None = None) -> Features:
        grid = tuple(tokens.shape[1:3])
        return self._split(self._with_positions(tokens, keep), grid if keep is None else (1, keep.shape[1]))

    def _with_positions(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        """What the first block gets, [B, P + N, D]: prefix tokens, and all patches or those of `keep`."""
        positions = self._positions(tuple(tokens.shape[1:3]))
        x = tokens.flatten(1, 2)
        prefix = self._prefix(len(x), positions)
        if positions is not None:
            x = x + positions[:, self.class_tokens :]
        if keep is not None:
            x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return torch.cat((*prefix, x), 1)

    def _block_outputs(self, tokens: Tensor, keep: Tensor | None) -> Iterator[Tensor]:
        """Run block by block: the output [B, P + N, D] of each, for all patches or those of `keep`."""
        grid = tuple(tokens.shape[1:3])
        bias = self._bias(grid)
        if keep is not None and bias is not None:
            bias = self._bias_of(bias, keep, grid)
        x = self._with_positions(tokens, keep)
        for block in self.body.blocks:
            x = self._run_block(block, x, bias)
            yield x

    def _run_block(self, block: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        block_bias = getattr(block.attn, "rel_pos_bias", None)
        return self._run(block, x, bias if block_bias is None else block_bias().unsqueeze(0))

    def _prefix(self, batch: int, positions: Tensor | None) -> list[Tensor]:
        """The class tokens, with their positions, and the register tokens: [batch, C, D] and [batch, R, D]."""
        tokens = []
        if self.config.class_token:
            token = self.body.cls_token
            token = token if positions is None else token + positions[:, : self.class_tokens]
            tokens.append(token.expand(batch, -1, -1))
        if self.config.registers:
            tokens.append(self.body.reg_token.expand(batch, -1, -1))
        return tokens

    def _bias_of(self, bias: Tensor, keep: Tensor, grid: Grid) -> Tensor:
        """The rows of `bias`, and its columns if it has some per token, for the prefix and the patches of `keep`."""
        prefix = self.num_prefix_tokens
        if self.config.position == "edge-rope":
            return self._edge_table(grid, keep)
        rows = torch.cat((torch.arange(prefix, device=keep.device).expand(len(keep), -1), keep + prefix), 1)
        if self.rotary:
            return bias[0, 0][rows].unsqueeze(1)
        return bias[0][:, rows[:, :, None], rows[:, None, :]].transpose(0, 1)

    def _run(self, block: Callable[..., Tensor], x: Tensor, bias: Tensor | None) -> Tensor:
        arguments = (x, bias.to(x.dtype)) if bias is not None else (x,)
        if self.grad_checkpointing and self.training:
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def _split(self, x: Tensor, grid: Grid) -> Features:
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return Features(patches.mean(1), patches.transpose(1, 2).unflatten(2, grid), prefix, self.class_tokens)

    def _positions(self, grid: Grid) -> Tensor | None:
        """Absolute position embeddings [1, C + h*w, D] at `grid`, those of C class tokens first."""
        if self.relative or self.config.position in ("rope", "edge-rope"):
            return None
        if tuple(grid) == self.grid:
            return self.body.pos_embed
        prefix, shift = self.class_tokens, 0.1 if self.config.position_resize == "dino" else None
        return resize_absolute(self.body.pos_embed, self.grid, tuple(grid), prefix, shift)

    def _require_shared_table(self, what: str) -> None:
        position = self.config.position
        if position in OWN_TABLES:
            instead = "relative" if position == "relative-per-block" else position.removesuffix("-and-relative")
            raise InputError(f'{what} is not for encoder.position "{position}"; use "{instead}"')

    def _patch_bias(self, grid: Grid) -> Tensor | None:
        """`_bias` without the prefix tokens."""
        bias, prefix = self._bias(grid), self.num_prefix_tokens
        if bias is None or self.rotary:
            return None if bias is None else bias[..., prefix:, :]
        return bias[..., prefix:, prefix:]

    def _bias(self, grid: Grid) -> Tensor | None:
        """Relative position bias [1, heads, N, N] over N = 1 + h*w tokens, class token first; or a rotary table.

        A rotary table [1, 1, P + h*w, 2 * channels of a head] takes the place of the bias in each block's attention.
        At another grid than that of image_size the shared table is resized anew in every pass, by plain bicubic
        interpolation. The official codes convert it once, as encoders/resample.py does.
        """
        if self.config.position == "edge-rope":
            return self._edge_table(grid)
        if self.rotary:
            config, device = self.config, self.body.patch_embed.proj.weight.device
            channels = config.embed_dim // config.num_heads
            return with_idle(rotary_table(grid, channels, config.rope_base, device=device), self.num_prefix_tokens)
        if tuple(grid) != self.grid:
            self._require_shared_table(f"another size than {self.image_size} px")
        if self.config.position != "relative":
            return None  # there is none, or blocks have their own
        table = self.body.rel_pos_bias.relative_position_bias_table
        if tuple(grid) != self.grid:
            from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple

            shape = ((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, self.config.num_heads)
            table = resize_rel_pos_bias_table_simple(table, tuple(grid), shape)
        index = self._position_index(tuple(grid), table.device)
        return table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1).unsqueeze(0)

    def _edge_table(self, grid: Grid, keep: Tensor | None = None) -> Tensor:
        channels, device = self.embed_dim // self.config.num_heads, self.body.patch_embed.proj.weight.device
        return edge_rotary_table(grid, channels, self.num_prefix_tokens, keep, device=device)

    def _position_index(self, grid: Grid, device: torch.device) -> Tensor:
        key = (grid, device)
        if key not in self._indices:
            from timm.models.beit import gen_relative_position_index

            with torch.inference_mode(False):  # an index first made in evaluation must serve training too
                index = gen_relative_position_index(grid, device=device)
            if type(index) is not Tensor:  # a fake tensor must not outlive its mode
                return index
            self._indices[key] = index
        return self._indices[key]
