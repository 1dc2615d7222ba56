"""Vision Transformers: timm's Beit (relative position bias) and VisionTransformer (absolute positions)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import run_block, uncompiled
from mimbench.contract import Encoder, Features, InputError
from mimbench.encoders.attention import attention_of_each
from mimbench.encoders.vit_body import build_body, check_form, further_blocks, join_tokens
from mimbench.encoders.vit_config import OWN_TABLES, ViTConfig, check_positions
from mimbench.encoders.vit_positions import Bias, ViTPositions
from mimbench.encoders.windows import Windows, add_positions, windowed_block
from mimbench.optim.layers import vit_layer

Grid = tuple[int, ...]


class ViT(Encoder):
    """A ViT. Blocks attend globally, or in windows for dense use (`use_windows`)."""

    kind: ClassVar[str] = "vit"
    can: frozenset[str] = frozenset(
        {
            *("mask-tokens", "separate-patches", "one-grid", "visible-only", "late-tokens", "class-token"),
            *("any-size", "drop-path", "windows", "relative-positions", "grad-checkpointing", "attention"),
            *("further-blocks", "block-input", "mlp-outputs"),
        }
    )
    version: ClassVar[str] = "1"
    Config = ViTConfig
    config: ViTConfig

    def __init__(self, config: ViTConfig, *, image_size: int, in_channels: int) -> None:
        super().__init__(config, image_size=image_size, in_channels=in_channels)
        self.positions = ViTPositions(config, self.grid, self.num_prefix_tokens)
        self.body = build_body(config, self.grid, in_channels)
        self.windows: Windows | None = None
        self.grad_checkpointing = False

    @classmethod
    def depends_on_processes(cls, config: ViTConfig) -> str:
        return "each process draws its own attention dropout" if config.attention_dropout else ""

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
        check_positions(config)
        check_form(config)
        if not config.class_token:
            self.can -= {"class-token"}
        if config.position in OWN_TABLES:
            self.can -= {"visible-only", "late-tokens", "windows", "any-size"}
        if config.position.startswith("relative") or config.position.endswith("rope"):
            self.can -= {"relative-positions"}
        if config.post_norm:
            self.can -= {"relative-positions", "windows"}

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
            self.positions.require_shared_table("dropping patches")
        outputs = list(islice(self._block_outputs(tokens, keep), max(indices) + 1))
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self.body.norm(outputs[-1])
        shape = grid if keep is None else (1, keep.shape[1])
        return [self._split(outputs[index], shape) for index in indices]

    def encode_late(self, tokens: Tensor, keep: Tensor, token: Tensor, late: int) -> Tensor:
        self.positions.require_shared_table("dropping patches")
        grid, early = tuple(tokens.shape[1:3]), self.num_layers - late
        if not 0 <= early < self.num_layers:
            raise InputError(f"mask tokens join in the last 1 to {self.num_layers} blocks, not in {late}")
        x, bias = self._with_positions(tokens, keep), self._bias(grid, keep)
        for block in self.body.blocks[:early]:
            x = self._run_block(block, x, bias)
        masked, positions = token.flatten(0, 2), self.positions.absolute(self.body, grid)
        if positions is not None:
            masked = masked + positions[:, self.class_tokens :]
        if self.config.post_norm:
            masked = self.body.norm_pre(masked)
        x = join_tokens(x, keep, masked.expand(len(x), grid[0] * grid[1], -1), self.num_prefix_tokens)
        bias = self._bias(grid, None)
        for block in self.body.blocks[early:]:
            x = self._run_block(block, x, bias)
        return self._split(self.body.norm(x), grid).dense

    def pyramid(self, images: Tensor) -> list[Tensor]:
        tokens = self.embed(images)
        if self.windows is None:
            return [self.encode(tokens)]
        grid = tuple(tokens.shape[1:3])
        positions = self.positions.absolute(self.body, grid)
        x = tokens if positions is None else tokens + positions[:, self.class_tokens :].unflatten(1, grid)
        window = (self.windows.size, self.windows.size)
        biases = {size: self.positions.patch_bias(self.body, size) for size in {grid, window}}
        for index, block in enumerate(self.body.blocks):
            size = grid if index in self.windows.global_blocks else window
            x = self._run(block, x, biases[size], size, by=windowed_block)
        return [self.body.norm(x).permute(0, 3, 1, 2)]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return (self.patch_size,)

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return (self.embed_dim,)

    def use_windows(self, window: int, global_blocks: tuple[int, ...]) -> None:
        """Windowed `pyramid`, without the class token, as ViTDet (arXiv:2203.16527) does; 0: global attention."""
        self.positions.require_shared_table("windowed attention")
        if window and self.config.post_norm:
            raise InputError("windows are not for encoder.post_norm; set window to 0 (--set task.window=0)")
        self.windows = Windows.checked(window, global_blocks, self.num_layers) if window else None
        for token in (self.body.cls_token, self.body.reg_token if self.config.registers else None):
            if token is not None:
                token.requires_grad_(self.windows is None)  # idle in windows, which distributed training forbids

    def add_relative_positions(self, image_size: int) -> None:
        """An encoder with relative or rotary positions keeps those."""
        if self.positions.relative or self.positions.rotary:
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

    def mlp_outputs(self, tokens: Tensor) -> list[Features]:
        grid, outputs = tuple(tokens.shape[1:3]), []
        hooks = [block.mlp.register_forward_hook(lambda *call: outputs.append(call[2])) for block in self.body.blocks]
        try:
            with uncompiled(self):  # a compiled block calls no hooks
                for _ in self._block_outputs(tokens, None):
                    pass
        finally:
            for hook in hooks:
                hook.remove()
        return [self._split(output, grid) for output in outputs]

    def further_blocks(self, drop_path: Sequence[float]) -> nn.ModuleList:
        return further_blocks(self.config, self.grid, drop_path)

    def run_blocks(self, blocks: Iterable[nn.Module], features: Features, *, final_norm: bool = True) -> Features:
        grid = tuple(features.dense.shape[2:])
        x, bias = features.sequence, self.positions.bias(self.body, grid)
        for block in blocks:
            x = self._run_block(block, x, bias)
        return self._split(self.body.norm(x) if final_norm else x, grid)

    def block_input(self, tokens: Tensor, *, keep: Tensor | None = None) -> Features:
        grid = tuple(tokens.shape[1:3])
        return self._split(self._with_positions(tokens, keep), grid if keep is None else (1, keep.shape[1]))

    def _with_positions(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        """What the first block gets, [B, P + N, D]: prefix tokens, and all patches or those of `keep`."""
        positions = self.positions.absolute(self.body, tuple(tokens.shape[1:3]))
        x = tokens.flatten(1, 2)
        prefix = self._prefix(len(x), positions)
        if positions is not None:
            x = x + positions[:, self.class_tokens :]
        if keep is not None:
            x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        x = torch.cat((*prefix, x), 1)
        return self.body.norm_pre(x) if self.config.post_norm else x

    def _block_outputs(self, tokens: Tensor, keep: Tensor | None) -> Iterator[Tensor]:
        """Run block by block: the output [B, P + N, D] of each, for all patches or those of `keep`."""
        x, bias = self._with_positions(tokens, keep), self._bias(tuple(tokens.shape[1:3]), keep)
        for block in self.body.blocks:
            x = self._run_block(block, x, bias)
            yield x

    def _bias(self, grid: Grid, keep: Tensor | None) -> Bias:
        """The bias or rotary table of all patches, or of those of `keep`."""
        if self.config.position == "edge-rope":
            return self.positions.edge_table(self.body, grid, keep)
        bias = self.positions.bias(self.body, grid)
        return bias if bias is None or keep is None else self.positions.chosen(bias, keep)

    def _run_block(self, block: nn.Module, x: Tensor, bias: Bias) -> Tensor:
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

    def _run(
        self, block: nn.Module, x: Tensor, bias: Bias, *options: Grid, by: Callable[..., Tensor] | None = None
    ) -> Tensor:
        bias = bias.to(x.dtype) if isinstance(bias, Tensor) else bias
        recompute = self.grad_checkpointing and self.training
        return run_block(block, x, bias, *options, by=by, recompute=recompute)

    def _split(self, x: Tensor, grid: Grid) -> Features:
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return Features(patches.mean(1), patches.transpose(1, 2).unflatten(2, grid), prefix, self.class_tokens)
