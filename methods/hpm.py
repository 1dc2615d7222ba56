"""HPM: predict pixels and the reconstruction loss of each patch; a teacher has the hardest patches masked."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    Encoder,
    Method,
    OfficialCode,
    StepOutput,
    Teacher,
    at_least_float32,
    guided_mask,
    init_xavier,
    random_mask,
    transformer_blocks,
)
from mimbench_methods._hpm_options import HPMConfig
from mimbench_methods._pixel_decoder import PixelDecoder
from mimbench_methods._places import visible_and_masked
from mimbench_methods._ranking import rank
from mimbench_methods.official.hpm import OfficialHPM


class HPM(PixelDecoder):
    """Wang et al., Hard Patches Mining for Masked Image Modeling (CVPR 2023, arXiv:2304.05919).

    Reference code: Apache 2.0; not used here.
    """

    name: ClassVar[str] = "hpm"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "pixels of masked patches, and the order of their errors"
    networks: ClassVar[tuple[str, ...]] = ("decoder", "loss decoder", "EMA teacher of all three")
    paper: ClassVar[str] = "https://arxiv.org/abs/2304.05919"
    reference: ClassVar[str] = "https://github.com/Haochen-Wang409/HPM@c15ae9077160b7940957f1423071d84044e41c8b"
    official: ClassVar[OfficialCode | None] = OfficialHPM()
    Config = HPMConfig
    config: HPMConfig

    def __init__(self, config: HPMConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        dim = config.decoder_dim
        self.loss_blocks = transformer_blocks(dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio)
        self.loss_norm = nn.LayerNorm(dim, eps=1e-6)
        self.loss_head = nn.Linear(dim, encoder.patch_size**2 * encoder.in_channels)
        init_xavier(self.loss_blocks)
        init_xavier(self.loss_head)
        self.teacher = Teacher(self)

    def set_image_size(self, size: int) -> None:
        Method.set_image_size(self, size)  # the teacher is for one size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """A mask that no teacher guides, as at the beginning of the training."""
        ratio = self.config.ratio_at(self.progress)
        return random_mask(batch, self.encoder.grid, ratio, generator, rounding="mae")

    def sample_guided_mask(self, images: Tensor, progress: float, generator: torch.Generator) -> Tensor:
        """The masks of the step that begins at `progress`, in [0, 1)."""
        masked = self.positions.shape[1] - self.visible
        guided = int(masked * self.config.share_at(progress))
        if not guided:
            return self.sample_mask(len(images), generator)
        return guided_mask(self.teacher.module.predicted_errors(images), masked, guided, generator)

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        return self(batch.images, self.sample_guided_mask(batch.images, batch.progress, generator))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """Reconstruction loss and ranking loss, added. `mask` has as many masked patches as those of `sample_mask`."""
        target, count = self.target(images), self.positions.shape[1] - self.visible
        visible, masked = visible_and_masked(mask, self.encoder.grid, count)
        x = self.decoder_input(images, visible)
        prediction = self.decode_pixels(x)
        reconstruction = self.loss(prediction, target, mask)
        errors = self.error(prediction.detach(), target).flatten(1).gather(1, masked)
        predicted = self.decode_errors(x).flatten(1).gather(1, masked)
        ranking, right = rank(at_least_float32(predicted), errors)
        logs = {"reconstruction": reconstruction.detach(), "ranking": ranking.detach(), "ranked_rightly": right}
        return StepOutput(reconstruction + ranking, logs)

    @torch.no_grad()
    def predicted_errors(self, images: Tensor) -> Tensor:
        """What the loss decoder predicts of each patch if it sees the whole image: [B, h, w]."""
        patches = torch.arange(self.positions.shape[1], device=images.device)
        return self.decode_errors(self.decoder_input(images, patches.expand(len(images), -1)))

    def decode_errors(self, x: Tensor) -> Tensor:
        """What `decoder_input` returns -> predicted error of each patch [B, h, w], on no scale: only its order counts.

        As officially, it is the mean of as many outputs as a patch has pixel values.
        """
        outputs = self.loss_head(self.loss_norm(self.loss_blocks(x))).mean(-1)
        return outputs[:, self.encoder.num_prefix_tokens :].unflatten(1, self.encoder.grid)

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self, self.config.tau_at(self.progress))
