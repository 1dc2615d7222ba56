"""What methods share that predict the visual words of masked patches: target, loss, pictures (BEiT, CAE)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mimbench.api import Method, Stage, at_least_float32, mean_over_masked
from mimbench_methods.tokenizers import Tokenizer


class MaskedWords(Method):
    """A method whose `predict` returns scores of every word, [B, h, w, V]. Its `__init__` sets the tokenizer."""

    tokenizer: Tokenizer

    def prepare(self, stage: Stage) -> None:
        self.tokenizer.prepare(stage)

    def target(self, images: Tensor) -> Tensor:
        """Words, int64 [B, h, w]."""
        return self.tokenizer.tokens(images)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy, mean over all masked patches of the batch together."""
        surprise = F.cross_entropy(at_least_float32(prediction).movedim(-1, 1), target, reduction="none")
        return mean_over_masked(surprise, mask)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Masked patches as the tokenizer decodes the likeliest words, among the words of the visible ones."""
        return self.tokenizer.paint(images, mask, self.predict(images, mask).argmax(-1))

    @property
    def reconstruction_note(self) -> str:
        return f"Masked patches are predicted words, as the tokenizer ({self.tokenizer.name}) decodes them."
