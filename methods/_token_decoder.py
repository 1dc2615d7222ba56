"""A decoder over all tokens of an encoder, and masked pixels of one colour (FastMIM, arXiv:2212.06593).

Reference code: its README says MIT, and it has no licence file; not used here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from torch import Tensor, nn

from mimbench.api import Config, Depth, Encoder, Features, added, transformer_blocks


class TokenDecoderConfig(Config):
    """What FastMIM changes in MaskFeat."""

    masked: Literal["token", "colour"] = added("token")
    """What the encoder sees of a masked patch. token: a mask token, after the patch embedding; colour: pixels of one
    learned colour, before it."""
    init: Literal["official", "xavier"] = added("official")
    """Initial weights: those of the official MaskFeat, or MAE's."""
    decoder_depth: Depth = added(0, ge=0)
    """Blocks between the encoder and the head, over all tokens and without positions; 0: the head alone."""
    decoder_dim: int = added(256, ge=4)
    decoder_heads: int = added(8, ge=1)

    @model_validator(mode="after")
    def _has_a_decoder(self) -> TokenDecoderConfig:
        if not self.decoder_depth and (self.decoder_dim, self.decoder_heads) != (256, 8):
            raise ValueError("decoder_dim and decoder_heads are for a decoder_depth above 0")
        if self.decoder_depth and self.init == "official":
            raise ValueError('init "official" is without a decoder; set init to "xavier", or decoder_depth to 0')
        return self


class TokenDecoder(nn.Module):
    """Features of an encoder -> [B, h, w, dim], after some blocks in which class tokens take part."""

    def __init__(self, config: TokenDecoderConfig, encoder: Encoder) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim)
        self.blocks = transformer_blocks(dim, config.decoder_depth, config.decoder_heads)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, features: Features) -> Tensor:
        x = self.norm(self.blocks(self.project(features.sequence)))
        return x[:, features.prefix.shape[1] :].unflatten(1, features.dense.shape[2:])
