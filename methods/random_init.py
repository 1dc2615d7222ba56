"""The control that every table needs: the same encoder, never pretrained."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mimbench.api import Method, NotSupported


class RandomInit(Method):
    """Exports the encoder as initialised. What a method scores above it, its pretraining has earned."""

    name: ClassVar[str] = "random-init"
    version: ClassVar[str] = "1"
    encoders: ClassVar[tuple[str, ...]] = ("vit", "swin", "convnet")
    pretrains: ClassVar[bool] = False

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        raise NotSupported("random-init masks nothing: it is not trained")

    def target(self, images: Tensor) -> Tensor:
        raise NotSupported("random-init predicts nothing: it is not trained")

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        raise NotSupported("random-init predicts nothing: it is not trained")

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        raise NotSupported("random-init has no loss: it is not trained")
