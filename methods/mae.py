"""MAE: encode the visible patches alone, then reconstruct the masked ones with a light decoder."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    InputError,
    MaskRatioConfig,
    Method,
    OfficialCode,
    StepOutput,
    at_least_float32,
    block_mask,
    check_mask_ratios,
    grid_mask,
    init_xavier,
    masked_count,
    mean_over_masked,
    patchify,
    random_mask,
    resize_mask,
    sincos_positions,
    transformer_blocks,
    visible_indices,
)
from mimbench_methods._normalised_patches import NOTE, fill_masked, normalised_patches
from mimbench_methods.official.mae import OfficialMAE


class MAEConfig(MaskRatioConfig):
    """The paper's choices; the defaults are those of its ViT-B."""

    mask: Literal["random", "block", "grid"] = "random"
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked. A grid keeps one patch of each k x k: 0.75, 0.889, 0.9375, ..."""
    min_block: int = Field(16, ge=1)
    """Block masks: least size of a block, in patches."""
    norm_pixels: bool = True
    """Predict each patch's pixels normalised by that patch's own mean and variance."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=0)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _has_masks_at_every_ratio(self) -> MAEConfig:
        if self.mask == "grid" and self.initial_mask_ratio is not None:
            raise ValueError("grid masks exist for few ratios and cannot change; leave initial_mask_ratio out")
        return self


class MAE(Method):
    """He et al., Masked Autoencoders Are Scalable Vision Learners (CVPR 2022, arXiv:2111.06377)."""

    name: ClassVar[str] = "mae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.06377"
    reference: ClassVar[str] = "https://github.com/facebookresearch/mae@efb2a8062c206524e35e47d04501ed4f544c0ae8"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    official: ClassVar[OfficialCode | None] = OfficialMAE()
    Config = MAEConfig
    config: MAEConfig
    positions: Tensor

    def __init__(self, config: MAEConfig, encoder: Encoder) -> None:
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
    def masks_only(cls, config: MAEConfig, encoder: Encoder) -> MAE:
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
        super().before_step(progress)
        if self.config.initial_mask_ratio is not None:
            self.visible = self._count_visible()

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """The same number of masked patches in each image, for every kind, so that the visible ones form a batch."""
        grid, ratio = self.patch_grid, self.config.ratio_at(self.progress)
        if self.config.mask == "random":
            return random_mask(batch, grid, ratio, generator, rounding="mae")
        if self.config.mask == "grid":
            return grid_mask(batch, grid, generator, period=_period(ratio))
        count = masked_count(grid[0] * grid[1], ratio, "mae")
        return block_mask(batch, grid, count, generator, min_block=self.config.min_block, exact=True)

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
        return mean_over_masked((at_least_float32(prediction) - target).square().mean(-1), mask)

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
        tokens = self.encoder.embed(images)
        prefix = self.encoder.num_prefix_tokens
        x = self.project(self.encoder.forward_tokens(tokens, keep).sequence)
        grid = self.mask_token.to(x.dtype).expand(len(x), self.positions.shape[1], -1)
        grid = grid.scatter(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]), x[:, prefix:])
        x = self.blocks(torch.cat((x[:, :prefix], grid + self.positions), 1))
        return self.head(self.norm(x))[:, prefix:].unflatten(1, tokens.shape[1:3])


def _period(ratio: float) -> int:
    """The k of a grid that keeps one patch of each k x k."""
    period = round((1 - ratio) ** -0.5)
    if period < 2 or abs(1 - period**-2 - ratio) > 0.005:
        raise InputError(f"no grid mask has the mask ratio {ratio:g}: choose method.mask_ratio 0.75, 0.889, ...")
    return period
