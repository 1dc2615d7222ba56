"""The network of VQ-KD: a ViT, a codebook of unit vectors, and a decoder that predicts a teacher's features.

Peng et al., BEiT v2 (arXiv:2208.06366). Official code: microsoft/unilm@768a3c87 beit2/, modeling_vqkd.py (MIT).
Not used here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import PatchViT, at_least_float32, full_precision
from mimbench_methods.tokenizers.quantizer import Quantizer


class WordEncoder(nn.Module):
    """Pixels to words: the part of VQ-KD that stays after its training."""

    def __init__(self, encoder: PatchViT, dim: int, quantizer: Quantizer) -> None:
        """dim: channels of `encoder`."""
        super().__init__()
        self.encoder = encoder
        self.to_code = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, quantizer.codes.shape[1]))
        self.quantizer = quantizer
        _init_linear(self.to_code)

    def features(self, pixels: Tensor) -> Tensor:
        """What is quantized: pixels in [-1, 1], [B, 3, H, W] -> [B, h, w, code_dim], in full precision."""
        patches = self.encoder(pixels)
        with full_precision(pixels.device):
            return self.to_code(at_least_float32(patches))

    def forward(self, pixels: Tensor) -> Tensor:
        """Words, int64 [B, h, w]."""
        return self.quantizer.assign(self.features(pixels))


@dataclass(frozen=True)
class Reading:
    """What one training step computes. Its loss is `commitment + error`."""

    tokens: Tensor
    """int64 [B, h, w]."""
    features: Tensor
    """Before the quantizer, [B, h, w, code_dim]."""
    codes: Tensor
    """After it."""
    prediction: Tensor
    """[B, h, w, target_dim]."""
    commitment: Tensor
    """Mean squared distance between unit features and their codes."""
    error: Tensor
    """Mean of 1 - cosine similarity of prediction and target."""


class VQKD(nn.Module):
    """The whole network, as it is trained."""

    def __init__(self, words: WordEncoder, decoder: PatchViT, dim: int, target_dim: int) -> None:
        """dim: channels of `decoder`."""
        super().__init__()
        self.words, self.decoder = words, decoder
        self.to_target = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, target_dim))
        _init_linear(self.to_target)

    def forward(self, pixels: Tensor, target: Tensor, generator: torch.Generator | None = None) -> Reading:
        """pixels: in [-1, 1], [B, 3, H, W]. target: the teacher's features, [B, h, w, target_dim]."""
        features = self.words.features(pixels)
        with full_precision(pixels.device):
            codes, tokens, commitment = self.words.quantizer(features, generator)
        prediction = self.to_target(self.decoder(codes.permute(0, 3, 1, 2)))
        error = 1 - F.cosine_similarity(at_least_float32(prediction), target, dim=-1).mean()
        return Reading(tokens, features, codes, prediction, commitment, error)

    def no_weight_decay(self) -> set[str]:
        vits = {"words.encoder": self.words.encoder, "decoder": self.decoder}
        return {f"{place}.{name}" for place, vit in vits.items() for name in vit.no_weight_decay()}


def _init_linear(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
