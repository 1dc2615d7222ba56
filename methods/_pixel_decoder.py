"""What methods share that encode the visible patches alone and predict the pixels of the masked ones (MAE, HPM)."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    MaskRatioConfig,
    Method,
    StepOutput,
    at_least_float32,
    check_mask_ratios,
    init_xavier,
    mean_over_masked,
    patchify,
    resize_mask,
    sincos_positions,
    transformer_blocks,
    visible_indices,
)
from mimbench_methods._normalised_patches import NOTE, fill_masked, normalised_patches


class PixelDecoderConfig(MaskRatioConfig):
    """Masked patches and the decoder that predicts them; the defaults are those of MAE's ViT-B."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked."""
    norm_pixels: bool = True
    """Predict each patch's pixels normalised by that patch's own mean and variance."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=0)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)


class PixelDecoder(Method):
    """A method whose encoder sees the visible patches only. Subclasses draw the masks.

    Each image has the same number of masked patches, so that the visible ones form a batch.
    """

    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    sees: ClassVar[str] = "visible patches"
    Config = PixelDecoderConfig
    config: PixelDecoderConfig
    positions: Tensor

    def __init__(self, config: PixelDecoderConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        dim, patch = config.decoder_dim, encoder.patch_size
        check_mask_ratios(self)
        self.visible = self._count_visible()
        """Patches that the encoder sees of each image."""
        self.project = nn.Linear(encoder.out_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_positions(encoder.grid, dim)[:, 1:], persistent=False)
        self.blocks = transformer_blocks(dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, patch**2 * encoder.in_channels)
        init_xavier(self)

    @classmethod
    def masks_only(cls, config: PixelDecoderConfig, encoder: Encoder) -> Self:
        """Without the decoder, whose blocks are slow to import."""
        method = cls.__new__(cls)
        Method.__init__(method, config, encoder)
        return method

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        check_mask_ratios(self)
        self.visible = self._count_visible()
        if "positions" in self._buffers:  # not of a method for masks only
            positions = sincos_positions(self.patch_grid, self.config.decoder_dim)[:, 1:]
            self.positions = positions.to(self.positions)

    def before_step(self, progress: float) -> None:
        if self.config.initial_mask_ratio is not None:
            self.visible = self._count_visible()

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, patch * patch * C], ordered row, column, channel."""
        if self.config.norm_pixels:
            return normalised_patches(images, self.encoder.patch_size)
        return patchify(at_least_float32(images), self.encoder.patch_size)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self._predict(images, visible_indices(resize_mask(mask, self.patch_grid)))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`.

        The number is known, so that an accelerator is not synchronised.
        """
        target = self.target(images)
        keep = visible_indices(resize_mask(mask, self.patch_grid), self.visible)
        return StepOutput(self.loss(self._predict(images, keep), target, mask))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over each patch, then over the masked patches of the batch."""
        return mean_over_masked(self.error(prediction, target), mask)

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared error of each patch, mean over its values: [B, h, w, D] -> [B, h, w]."""
        return (at_least_float32(prediction) - target).square().mean(-1)

    def no_weight_decay(self) -> set[str]:
        """The official script decays everything of two or more dimensions, class and mask token included."""
        return set()

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and variance of each masked patch.

        They are not predicted: brightness and contrast of the masked patches are the true ones, structure is predicted.
        """
        patches, size = self.predict(images, mask), self.encoder.patch_size
        return fill_masked(images, mask, patches, size, normalised=self.config.norm_pixels)

    @property
    def reconstruction_note(self) -> str:
        return NOTE if self.config.norm_pixels else ""

    def _count_visible(self) -> int:
        """Visible patches in each image now: all masks of one ratio have as many."""
        return int((~self.sample_mask(1, torch.Generator())).sum())

    def _predict(self, images: Tensor, keep: Tensor) -> Tensor:
        """keep: int64 [B, K], the visible patches, in any order."""
        return self.decode_pixels(self.decoder_input(images, keep))

    def decoder_input(self, images: Tensor, keep: Tensor) -> Tensor:
        """Projected tokens [B, P + h * w, decoder_dim] of an image, mask tokens among them, with their positions.

        keep: int64 [B, K], the visible patches, in any order.
        """
        prefix = self.encoder.num_prefix_tokens
        x = self.project(self.encoder.forward_tokens(self.encoder.embed(images), keep).sequence)
        grid = self.mask_token.to(x.dtype).expand(len(x), self.positions.shape[1], -1)
        grid = grid.scatter(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x[:, prefix:])
        return torch.cat((x[:, :prefix], grid + self.positions), 1)

    def decode_pixels(self, x: Tensor) -> Tensor:
        """What `decoder_input` returns -> pixels of each patch [B, h, w, patch * patch * C]."""
        pixels = self.head(self.norm(self.blocks(x)))
        return pixels[:, self.encoder.num_prefix_tokens :].unflatten(1, self.patch_grid)
