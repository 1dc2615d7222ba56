"""CAE: predict what the encoder would make of masked patches, and from that their visual words."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    StepOutput,
    Teacher,
    at_least_float32,
    block_mask,
    sincos_positions,
    transformer_blocks,
)
from mimbench_methods._cae_options import CAEConfig
from mimbench_methods._latent_regressor import init_weights, regressor_blocks
from mimbench_methods._masked_words import MaskedWords
from mimbench_methods._places import put_at, visible_and_masked
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.cae import OfficialCAE


class CAE(MaskedWords, DecaysTokens):
    """Chen et al., Context Autoencoder for Self-Supervised Representation Learning (IJCV 2023, arXiv:2202.03026).

    Reference code: no licence (built on BEiT's, MIT); not used here.
    """

    name: ClassVar[str] = "cae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "encoder's outputs and visual words of masked patches"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("regressor", "decoder", "teacher", "tokenizer")
    paper: ClassVar[str] = "https://arxiv.org/abs/2202.03026"
    reference: ClassVar[str] = "https://github.com/lxtGH/CAE@d72597143e486d9bbbaf1e3adc4fd9cfa618633a"
    official: ClassVar[OfficialCode | None] = OfficialCAE()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "one-grid"})
    Config = CAEConfig
    config: CAEConfig
    positions: Tensor

    def __init__(self, config: CAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible mask is refused now, not at the first step
        dim, heads, ratio = config.decoder_dim, config.decoder_heads, config.decoder_mlp_ratio
        scale, rate = config.decoder_layer_scale, config.decoder_drop_path
        self.project: nn.Module = nn.Identity()
        if dim != encoder.out_dim:
            self.project = nn.Sequential(nn.Linear(encoder.out_dim, dim), nn.LayerNorm(dim, eps=1e-6))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_positions(encoder.grid, dim, rows_first=True)[0, 1:], persistent=False)
        self.regressor = regressor_blocks(dim, config.regressor_depth, heads, ratio, layer_scale=scale, drop_path=rate)
        self.regressor_norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder = transformer_blocks(dim, config.decoder_depth, heads, ratio, drop_path=rate, layer_scale=scale)
        self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, config.words.vocabulary)
        init_weights(self)
        self.tokenizer = config.build_tokenizer(encoder)
        self.teacher = Teacher(encoder)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        config, grid = self.config, self.encoder.grid
        return block_mask(batch, grid, config.hidden_patches, generator, min_block=config.min_block, retry=True)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Scores of every word, [B, h, w, V]; 0 at visible patches."""
        visible, masked = visible_and_masked(mask, self.encoder.grid)
        return self._on_grid(self.decode(self.regress(images, visible, masked), masked), masked)

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`."""
        visible, masked = visible_and_masked(mask, self.encoder.grid, self.config.hidden_patches)
        latent = self.regress(images, visible, masked)
        scores = self._on_grid(self.decode(latent, masked), masked)
        words = self.loss(scores, self.target(images), mask)
        alignment = F.mse_loss(at_least_float32(latent), at_least_float32(self.latent_target(images, masked)))
        logs = {"words": words.detach(), "alignment": alignment.detach()}
        return StepOutput(words + self.config.align_weight * alignment, logs)

    def regress(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """The encoder's outputs at masked patches, predicted from its outputs at visible ones: [B, M, decoder_dim].

        visible, masked: row-major indices of patches, int64 [B, K] and [B, M].
        """
        encoded = self.encoder.forward_tokens(self.encoder.embed(images), visible).sequence
        context = self.project(encoded)[:, self.encoder.num_prefix_tokens :]
        x = self.mask_token.to(context.dtype).expand(*masked.shape, -1)
        queried, seen = self.positions[masked], self.positions[visible]
        for block in self.regressor:
            x = block(x, torch.cat((context, x), 1), queried, torch.cat((seen, queried), 1))
        return self.regressor_norm(x)

    def decode(self, latent: Tensor, masked: Tensor) -> Tensor:
        """What `regress` returns -> scores of every word [B, M, V]."""
        return self.head(self.decoder_norm(self.decoder(latent + self.positions[masked])))

    @torch.no_grad()
    def latent_target(self, images: Tensor, masked: Tensor) -> Tensor:
        """What the teacher makes of the masked patches alone: [B, M, decoder_dim].

        As officially, it is in training mode if the student is: its drop path is on.
        """
        teacher = self.teacher.module.train(self.training)
        encoded = teacher.forward_tokens(teacher.embed(images), masked).sequence
        return self.project(encoded[:, teacher.num_prefix_tokens :])

    def before_update(self, progress: float) -> None:
        """As officially, the teacher follows before the optimizer's step, so it lags behind by one step."""
        self.teacher.follow(self.encoder, self.config.momentum)

    def _on_grid(self, scores: Tensor, masked: Tensor) -> Tensor:
        """[B, M, V] at the patches `masked` [B, M] -> [B, h, w, V], 0 elsewhere."""
        filled = put_at(masked, scores, scores.new_zeros(()), len(self.positions))
        return filled.unflatten(1, self.encoder.grid)
