"""Options of a ViT."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mimbench.contract import Config, Depth, InputError, added

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
    """Class tokens, if there are any, each with a separate position (Pixio: 8); more than one is not for relative
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
    post_norm: bool = added(False)
    """True: norms after each residual sum and before the first block (data2vec 2.0), for sincos or learned positions;
    False: norms before each branch of a block and after the last block."""


def check_positions(config: ViTConfig) -> None:
    """Raise InputError if `position` does not go together with the other options."""
    if config.post_norm and config.position not in ("sincos", "learned"):
        raise InputError(
            f'encoder.post_norm is not for encoder.position "{config.position}"; choose "sincos" or "learned"'
        )
    if config.class_tokens > 1 and not config.class_token:
        raise InputError(f"encoder.class_tokens {config.class_tokens} needs encoder.class_token = true")
    if config.position.startswith("relative") and (
        config.registers or not config.class_token or config.class_tokens > 1
    ):
        option = "encoder.class_tokens" if config.class_tokens > 1 else "encoder.class_token = false"
        option = "encoder.registers" if config.registers else option
        raise InputError(
            f'{option} is not for encoder.position "{config.position}"; choose another position, such as "rope"'
        )
    if config.position_resize != "antialiased" and config.position not in ("sincos", "learned", "learned-and-rope"):
        raise InputError(f'encoder.position_resize does nothing for encoder.position "{config.position}"; leave it out')
    if config.position.endswith("rope") and config.embed_dim // config.num_heads % 4:
        raise InputError(
            f'encoder.position "{config.position}" needs heads whose channels are a multiple of 4; these have '
            f"{config.embed_dim // config.num_heads}; change encoder.embed_dim or encoder.num_heads"
        )
