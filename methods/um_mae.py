"""UM-MAE: an encoder sees one cell of each 2 x 2, on a compact grid, and a light decoder predicts the others.

Reference code: CC-BY-NC 4.0; not used here. No golden vectors: tests compare with a second formulation.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    init_xavier,
    replace_masked,
    require_abilities,
    resize_mask,
)
from mimbench_methods._compact_grid import (
    MASKED,
    TOKEN,
    compact,
    draw_cells,
    one_of_each_square,
    places_of,
    squares_of,
)
from mimbench_methods._patch_pixels import PatchDecoder
from mimbench_methods._places import put_at
from mimbench_methods._um_mae_options import UMMAEConfig
from mimbench_methods._weight_decay import DecaysTokens


class UMMAE(PatchDecoder, DecaysTokens):
    """Li et al., Uniform Masking: Enabling MAE Pre-training for Pyramid-based Vision Transformers with Locality (2022).

    A mask is uint8 [B, Gh, Gw], of VISIBLE, TOKEN and MASKED. Pictures have a bool mask on any grid: see `divide`.
    """

    name: ClassVar[str] = "um-mae"
    version: ClassVar[str] = "2"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    sees: ClassVar[str] = "a compact grid of the visible patches, some as a token"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.10063"
    reference: ClassVar[str] = "https://github.com/implus/UM-MAE@cb7776b075491824626cd93b64d7de62f0cf28c6"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens", "separate-patches"})
    Config = UMMAEConfig
    config: UMMAEConfig

    def __init__(self, config: UMMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if not self._drops_patches:
            require_abilities("method um-mae", {"any-size"}, encoder)
        config.check_encoder(encoder)
        self.build_decoder(self.grid)
        self.project = nn.Linear(encoder.out_dim, config.decoder_dim * self._cells_per_output**2)
        init_xavier(self.project)
        if config.token_ratio:
            self.encoder_token = nn.Parameter(torch.empty(1, 1, 1, encoder.embed_dim).normal_(std=0.02))

    @property
    def pixel_patch(self) -> int:
        return self.config.cell_of(self.encoder)

    @property
    def grid(self) -> tuple[int, int]:
        """Cells of the image, rows and columns."""
        return (self.encoder.image_size // self.pixel_patch,) * 2

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return draw_cells(batch, self.grid, self.config.token_ratio, generator)

    def masked_cells(self, mask: Tensor) -> Tensor:
        """The cells that are predicted."""
        return resize_mask(mask, self.grid) if mask.dtype == torch.bool else mask == MASKED

    def divide(self, mask: Tensor) -> Tensor:
        """A bool mask on any grid as VISIBLE, TOKEN and MASKED: uint8 [B, Gh, Gw]. Other masks stay as they are."""
        return one_of_each_square(~self.masked_cells(mask)) if mask.dtype == torch.bool else mask

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, h, w, cell_size * cell_size * C]"""
        mask = self.divide(mask)
        corners = squares_of(mask < MASKED).int().argmax(-1)
        places = places_of(corners)
        prefix, x = self.encode(images, mask, corners, places)
        grid = put_at(places, x, self.mask_token, self.positions.shape[1])
        pixels = self.head(self.norm(self.blocks(torch.cat((prefix, grid + self.positions), 1))))
        return pixels[:, prefix.shape[1] :].unflatten(1, self.grid)

    def encode(self, images: Tensor, mask: Tensor, corners: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Projected prefix tokens, and one token per cell that stays, square by square: [B, N / 4, decoder_dim]."""
        tokens = self.encoder.embed(images)
        tokens = replace_masked(tokens, mask == TOKEN, self._token(tokens))
        if self._drops_patches:
            x = self.project(self.encoder.forward_tokens(tokens, places).sequence)
            prefix = self.encoder.num_prefix_tokens
            return x[:, :prefix], x[:, prefix:]
        x = self.project(self.encoder.encode(compact(tokens, corners)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.pixel_shuffle(x, self._cells_per_output).flatten(2).transpose(1, 2)
        return x[:, :0], x

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over each cell, then over the cells of the batch that are left out."""
        return super().loss(prediction, target, self.masked_cells(mask))

    def _token(self, tokens: Tensor) -> Tensor:
        """What the encoder sees for a TOKEN cell: [1, 1, 1, D]. Zeros if no token is trained."""
        if not self.config.token_ratio:  # only bool masks have such cells then
            return tokens.new_zeros(1, 1, 1, tokens.shape[-1])
        token: Tensor = self.encoder_token
        # Officially the mask token passes the encoder's norm, with its weights.
        return F.layer_norm(token, token.shape[-1:]) if "normed-tokens" in self.encoder.can else token

    @property
    def _drops_patches(self) -> bool:
        """Whether the encoder takes the cells that stay as a list, with their positions, and not as a compact grid."""
        return "visible-only" in self.encoder.can and self.pixel_patch == self.encoder.patch_size

    @property
    def _cells_per_output(self) -> int:
        """Cells along a side of what one output of the encoder stands for."""
        return 1 if self._drops_patches else self.encoder.stride // self.pixel_patch
