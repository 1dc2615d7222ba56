"""The asymmetric autoencoder of cubes that VideoMAE and MAE-ST share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Depth,
    Method,
    at_least_float32,
    mean_over_masked,
    transformer_blocks,
    visible_indices,
)
from mimbench_methods._places import put_at


class CubeAutoencoderConfig(Config):
    """The mask and the decoder."""

    mask_ratio: float = Field(0.9, gt=0, lt=1)
    """Share of the cubes that is masked."""
    norm_pixels: bool = True
    """Predict the pixels of each cube, normalised by their own mean and standard deviation."""
    decoder_dim: int = Field(384, ge=2)
    decoder_depth: Depth = Field(4, ge=0)
    decoder_heads: int = Field(6, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)


class CubeAutoencoder(Method):
    """Encode the visible cubes of a clip alone; a light decoder gets them and mask tokens, and predicts each cube."""

    sees: ClassVar[str] = "visible cubes"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "clips"})
    takes_clips: ClassVar[bool] = True
    takes_images: ClassVar[bool] = False
    config: CubeAutoencoderConfig
    positions: Tensor
    project: nn.Linear
    mask_token: nn.Parameter
    blocks: nn.Sequential
    norm: nn.LayerNorm
    head: nn.Linear

    def build_blocks(self) -> None:
        """The decoder's blocks and last norm. Keys have no bias, which would change no attention."""
        config = self.config
        self.blocks = transformer_blocks(
            config.decoder_dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, key_bias=False
        )
        self.norm = nn.LayerNorm(config.decoder_dim, eps=1e-6)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """In the shape of the target."""
        keep = visible_indices(mask)
        features = self.encoder.forward_tokens(self.encoder.embed(images), keep)
        visible = self.project(features.patches)
        tokens = put_at(keep, visible, self.mask_token, mask[0].numel())
        return self.head(self.norm(self.decode(tokens))).unflatten(1, mask.shape[1:])

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of all cubes without positions, [B, N, decoder_dim] -> the output of the decoder's blocks."""
        return self.blocks(tokens + self.positions)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over the masked cubes of the batch."""
        return mean_over_masked((at_least_float32(prediction) - target).square().mean(-1), mask)

    @property
    def reconstruction_note(self) -> str:
        if not self.config.norm_pixels:
            return ""
        return "Mean and contrast of each masked cube are the true ones; only its structure is predicted."
