"""MixMIM (MixMAE): masked patches of an image show another image of the batch, and both images are reconstructed.

Reference code: no licence found; not used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mimbench.api import OfficialCode, at_least_float32, masked_count, random_order, resize_mask
from mimbench_methods._cell_decoder import CellDecoder, CellDecoderConfig
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.mixmim import OfficialMixMIM


class MixMIM(CellDecoder, DecaysTokens):
    """Liu et al., MixMAE: Mixed and Masked Autoencoder for Efficient Pretraining of Hierarchical Transformers."""

    name: ClassVar[str] = "mixmim"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of two mixed images"
    sees: ClassVar[str] = "all patches, masked ones of another image"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.13137"
    reference: ClassVar[str] = "https://github.com/Sense-X/MixMIM@2b2f5a9a8c0fa18b8e261d0bc21301300589fb21"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mixed-images"})
    waivers: ClassVar[Mapping[str, str]] = {
        "masks_differ": "all images of a batch have one mask",
        "masked_pixels_do_not_reach_predict": "visible cells are predicted too, from the masked ones",
    }
    official: ClassVar[OfficialCode | None] = OfficialMixMIM()
    eps: ClassVar[float] = 1e-5

    @classmethod
    def depends_on_processes(cls, config: CellDecoderConfig) -> str:
        return "an image is mixed with another one of the same process, and each process draws its own mask"

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """One mask for the batch: bool [batch, Gh, Gw]."""
        order = random_order(1, self.grid, generator)
        masked = order[:, : masked_count(order.shape[1], self.config.ratio_at(self.progress), "floor")]
        mask = torch.zeros(order.shape, dtype=torch.bool, device=order.device).scatter(1, masked, True)
        return mask.unflatten(1, self.grid).expand(batch, -1, -1)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, h, w, stride * stride * C]: each cell of an image as it is predicted where it is masked.

        Masked cells are predicted from the mixed image that shows the visible ones, and visible cells from that which
        shows the masked ones.
        """
        mask = resize_mask(mask, self.grid)
        first, second = self.decode_both(self.encode(images, mask), mask)
        return torch.where(mask.unsqueeze(-1), first, second.flip(0))

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Mixed images, encoded: [B, h * w, out_dim]. Number i shows image B - 1 - i where image i is masked."""
        tokens = self.encoder.embed(images)
        replaced = resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1)
        mixed = torch.where(replaced, tokens.flip(0), tokens)
        return self.encoder.encode_mixed(mixed, mask).flatten(2).transpose(1, 2)

    def decode_both(self, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels of both images of each mixed image: of that which is visible where `mask` is false, and the other.

        Returns:
            Each [B, h, w, stride * stride * C].
        """
        x, masked = self.project(encoded), mask.flatten(1).unsqueeze(-1)
        token = self.mask_token.to(x.dtype)
        first, second = self.decode(torch.cat((torch.where(masked, token, x), torch.where(masked, x, token)))).chunk(2)
        return first, second

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over all cells: each is masked in one of the two mixed images that show its image."""
        return (at_least_float32(prediction) - target).square().mean()
