"""An encoder under check: its options, its images, and models of it with seeded weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mimbench.contract import Config, Encoder
from mimbench.testing.form import make_config
from mimbench.testing.tensors import seeded

IMAGES = 3


class EncoderSubject:
    """An encoder with its options and the size of its images."""

    kind = "encoder"

    def __init__(
        self, encoder: type[Encoder], options: Mapping[str, Any] | Config | None, image_size: int, channels: int
    ) -> None:
        self.plugin, self._options = encoder, options
        self.image_size, self.channels = image_size, channels

    def make_config(self) -> Config:
        return make_config(self.plugin, self._options, "encoder")

    def build(self, seed: int = 0) -> Encoder:
        """The encoder in evaluation mode, with every trainable weight moved, so that none of them is zero."""
        with seeded(seed):
            encoder = self.plugin(self.make_config(), image_size=self.image_size, in_channels=self.channels)
            with torch.no_grad():
                for parameter in encoder.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn(parameter.shape))
        return encoder.eval()

    def images(self, count: int = IMAGES, size: tuple[int, int] | None = None) -> Tensor:
        """float [count, C, H, W]; `size` is (H, W), image_size if it is None."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.channels, *(size or (self.image_size,) * 2), generator=generator)
