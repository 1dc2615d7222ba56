"""An encoder under check: its options, its images, and models of it with seeded weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mimbench.contract import Config, Encoder
from mimbench.contract.input import image_shape
from mimbench.testing.form import make_config
from mimbench.testing.tensors import seeded

IMAGES = 3


class EncoderSubject:
    """An encoder with its options and the size of its images."""

    kind = "encoder"

    def __init__(
        self,
        encoder: type[Encoder],
        options: Mapping[str, Any] | Config | None,
        image_size: int,
        channels: int,
        frames: int,
    ) -> None:
        self.plugin, self._options = encoder, options
        self.image_size, self.channels, self.frames = image_size, channels, frames

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image or clip."""
        return image_shape(self.channels, self.image_size, self.frames)

    @property
    def sizes(self) -> dict[str, int]:
        """Arguments of `Encoder.build` and `Encoder.sizes_only`."""
        return {"image_size": self.image_size, "in_channels": self.channels, "frames": self.frames}

    def make_config(self) -> Config:
        return make_config(self.plugin, self._options, "encoder")

    def build(self, seed: int = 0) -> Encoder:
        """The encoder in evaluation mode, with every trainable weight moved, so that none of them is zero."""
        with seeded(seed):
            encoder = self.plugin.build(self.make_config(), **self.sizes)
            with torch.no_grad():
                for parameter in encoder.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn(parameter.shape))
        return encoder.eval()

    def images(self, count: int = IMAGES, size: tuple[int, int] | None = None) -> Tensor:
        """float [count, C, H, W], or clips [count, C, T, H, W]; `size` is (H, W), image_size if it is None."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, *self.shape[:-2], *(size or self.shape[-2:]), generator=generator)
