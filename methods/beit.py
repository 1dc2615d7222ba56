"""BEiT: predict the visual words of masked patches."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    StepOutput,
    block_mask,
    init_truncated,
    mean_over_masked,
)
from mimbench_methods._masked_patches import count_masked
from mimbench_methods._masked_words import MaskedWords
from mimbench_methods.official.beit import OfficialBEiT
from mimbench_methods.tokenizers import TokenizedConfig


class BEiTConfig(TokenizedConfig):
    """The mask's defaults are the official ones for 14 x 14 patches. Only the chosen tokenizer's table counts."""

    hidden_patches: int = Field(75, ge=1)
    """Most patches that are masked in an image; a mask may have a few less, as in the official code. If the image size
    changes over the training (pretrain.image_sizes), this is for input.image_size, and the share stays."""
    min_block: int = Field(16, ge=1)
    """Least size of a block, in patches."""


class BEiT(MaskedWords):
    """Bao et al., BEiT: BERT Pre-Training of Image Transformers (ICLR 2022, arXiv:2106.08254).

    Reference code: MIT; not used here.
    """

    name: ClassVar[str] = "beit"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "visual words of masked patches"
    sees: ClassVar[str] = "all patches, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head", "tokenizer")
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.08254"
    reference: ClassVar[str] = (
        "https://github.com/microsoft/unilm/tree/master/beit@768a3c873f598bb9b4d4dfb9267b099e35f8fe56"
    )
    official: ClassVar[OfficialCode | None] = OfficialBEiT()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens", "separate-patches", "one-grid"})
    Config = BEiTConfig
    config: BEiTConfig

    def __init__(self, config: BEiTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible mask is an error here, not in the first step
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.out_dim, config.words.vocabulary)
        init_truncated(self)
        self.tokenizer = config.build_tokenizer(encoder)

    def set_image_size(self, size: int) -> None:
        self.image_size = size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        count = count_masked(self, self.config.hidden_patches)
        return block_mask(batch, self.patch_grid, count, generator, min_block=self.config.min_block)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Scores of every word, [B, h, w, V]; at visible patches too, so that no shape depends on the mask."""
        return self.head(self.encoder.encode_masked(images, mask, self.mask_token).permute(0, 2, 3, 1))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        target = self.target(images)
        prediction = self.predict(images, mask)
        right = (prediction.detach().argmax(-1) == target).float()
        return StepOutput(self.loss(prediction, target, mask), {"mlm_acc": mean_over_masked(right, mask)})

    def sample_masked(
        self, images: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        scores = self.predict(images, mask).float()
        gumbel = -torch.empty_like(scores).exponential_(generator=generator).log()
        words = (scores + temperature * gumbel).argmax(-1)
        return self.tokenizer.paint(images, mask, words), scores.log_softmax(-1).gather(
            -1, words.unsqueeze(-1)
        ).squeeze(-1)
