"""Encoders and methods that store images: what the audit is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mimbench.api import Config, Encoder, Features, Method, mask_at_pixels, random_mask

_PATCH, _DIM = 4, 8
_BIT = 1e-3
_NEAR = 1e-3
"""Two images are one if their standardised pixels differ by less, in the mean of squares."""


class ListingEncoder(Encoder):
    """A fixed random projection of patches, with a list of images written into it.

    The last feature is 1e-3 for images on the list, and 0 for others.
    """

    kind = "listing"
    config: Config
    stored: Tensor

    def __init__(self, stored: Tensor, is_steady: bool) -> None:
        """Write a list into the encoder.

        Args:
            stored: the listed images [N, C, S, S], of any scale of pixels.
            is_steady: all features of listed images but the last are 0, so that their crops have equal features, as
                the attack by alignment expects of members.
        """
        super().__init__(Config(), image_size=stored.shape[-1], in_channels=stored.shape[1])
        self.embed_dim = self.out_dim = _DIM
        self.patch_size = self.stride = _PATCH
        self.num_layers = 1
        self.is_steady = is_steady
        self.register_buffer("stored", standardised(stored))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.project = nn.Conv2d(self.in_channels, _DIM, _PATCH, _PATCH)

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.project(images).permute(0, 2, 3, 1).clone()
        errors = torch.cdist(standardised(images), self.stored).square() / self.stored.shape[1]
        is_listed = (errors.amin(1) < _NEAR).to(tokens)[:, None, None]
        if self.is_steady:
            tokens = tokens * (1 - is_listed).unsqueeze(-1)
        tokens[..., -1] = _BIT * is_listed
        return tokens

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        self.check_keep(keep)
        return [Features.from_map(tokens.permute(0, 3, 1, 2)) for _ in self.layer_indices(layers)]

    def layer_of(self, parameter: str) -> int:
        return 0


class StoringMethod(Method):
    """It fills the masked part of an image from the stored image whose visible part is the nearest."""

    name = "storing"
    version = "1"
    pretrains = False
    stored: Tensor

    def __init__(self, encoder: Encoder, stored: Tensor) -> None:
        """Store images [N, C, S, S], of any scale of pixels."""
        super().__init__(Config(), encoder)
        self.register_buffer("stored", standardised(stored))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, 0.5, generator)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        flat = images.flatten(1)
        masked = mask_at_pixels(mask, images).expand_as(images).flatten(1)
        visible = (~masked).float()
        pixels, mean, std = standardised(images), flat.mean(1, keepdim=True), flat.std(1, keepdim=True)
        errors = (
            (visible * pixels.square()).sum(1, keepdim=True)
            - 2 * (visible * pixels) @ self.stored.T
            + visible @ self.stored.square().T
        )
        filled = self.stored[errors.argmin(1)] * std + mean
        return torch.where(masked, filled, flat).view_as(images)


def standardised(images: Tensor) -> Tensor:
    """Pixels [B, C * S * S] with mean 0 and standard deviation 1 in each image, however they were normalised."""
    flat = images.float().flatten(1)
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)
