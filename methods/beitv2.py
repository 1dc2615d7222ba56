"""BEiT v2: predict the words of VQ-KD at masked patches, once more from the class token and an early layer."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    Features,
    Method,
    OfficialCode,
    Stage,
    StepOutput,
    at_least_float32,
    block_mask,
    init_truncated,
    mean_over_masked,
    replace_masked,
)
from mimbench_methods._beitv2_options import BEiTv2Config
from mimbench_methods._chosen_layers import require_layers
from mimbench_methods._late_blocks import late_blocks
from mimbench_methods.official.beitv2 import OfficialBEiTv2
from mimbench_methods.tokenizers.vqkd import VQKDTokenizer


class BEiTv2(Method):
    """Peng et al., BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers (arXiv:2208.06366).

    Reference code: MIT; not used here.
    """

    name: ClassVar[str] = "beitv2"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "words of VQ-KD at masked patches"
    sees: ClassVar[str] = "all patches, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head", "2 blocks", "tokenizer")
    supervision: ClassVar[tuple[str, ...]] = (
        'CLIP features (the tokenizer\'s teacher; not with vqkd.teacher = "hog")',
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/2208.06366"
    reference: ClassVar[str] = (
        "https://github.com/microsoft/unilm/tree/master/beit2@768a3c873f598bb9b4d4dfb9267b099e35f8fe56"
    )
    official: ClassVar[OfficialCode | None] = OfficialBEiTv2()
    encoder_needs: ClassVar[frozenset[str]] = frozenset(
        {"mask-tokens", "separate-patches", "one-grid", "class-token", "further-blocks"}
    )
    Config = BEiTv2Config
    config: BEiTv2Config

    def __init__(self, config: BEiTv2Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible mask is refused now, not at the first step
        require_layers(encoder, "early_layers", config.early_layers)
        dim, words = encoder.out_dim, config.vqkd
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.head = nn.Linear(dim, words.vocabulary)
        if not config.shared_head:
            self.late_norm, self.late_head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, words.vocabulary)
        init_truncated(self)
        self.late_blocks = late_blocks(encoder, config)
        tokenizer = VQKDTokenizer(
            words, patch_size=encoder.patch_size, channels=encoder.in_channels, image_size=encoder.image_size
        )
        self.tokenizer = tokenizer.requires_grad_(False)

    def prepare(self, stage: Stage) -> None:
        self.tokenizer.prepare(stage)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        config = self.config
        return block_mask(
            batch, self.encoder.grid, config.hidden_patches, generator, min_block=config.min_block, exact=True
        )

    def target(self, images: Tensor) -> Tensor:
        """Words, int64 [B, h, w]."""
        return self.tokenizer.tokens(images)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Scores of every word from the last layer and from the late blocks, [B, 2, h, w, V], visible patches too."""
        tokens = replace_masked(self.encoder.embed(images), mask, self.mask_token)
        early, last = self.encoder.forward_layers(tokens, (self.config.early_layers - 1, -1), final_norm=False)
        mixed = Features(early.pooled, early.dense, torch.cat((last.prefix[:, :1], early.prefix[:, 1:]), 1))
        shared = self.config.shared_head
        late = self.encoder.run_blocks(self.late_blocks, mixed, final_norm=shared).dense.permute(0, 2, 3, 1)
        normed = self.encoder.run_blocks((), last).dense.permute(0, 2, 3, 1)
        late_scores = self.head(late) if shared else self.late_head(self.late_norm(late))
        return torch.stack((self.head(normed), late_scores), 1)

    def losses(self, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of both predictions, each the mean over all masked patches of the batch together."""
        first, second = at_least_float32(prediction).unbind(1)
        return _surprise(first, target, mask), _surprise(second, target, mask)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return sum(self.losses(prediction, target, mask), prediction.new_zeros(()))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        target = self.target(images)
        prediction = self.predict(images, mask)
        right = (prediction.detach().argmax(-1) == target.unsqueeze(1)).float()
        accuracies = [mean_over_masked(part, mask) for part in right.unbind(1)]
        logs = {"mlm_acc": accuracies[0], "mlm_acc_late": accuracies[1]}
        return StepOutput(self.loss(prediction, target, mask), logs)


def _surprise(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return mean_over_masked(F.cross_entropy(scores.movedim(-1, 1), target, reduction="none"), mask)
