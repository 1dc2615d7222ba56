"""HPM: predict pixels and the reconstruction loss of each patch; a teacher has the hardest patches masked."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
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
    mean_over_shares,
    random_mask,
    resize_mask,
    transformer_blocks,
    visible_indices,
)
from mimbench_methods._pixel_decoder import PixelDecoder, PixelDecoderConfig
from mimbench_methods._slow_teachers import TauConfig
from mimbench_methods.official.hpm import OfficialHPM


class HPMConfig(PixelDecoderConfig, TauConfig):
    """The defaults are those of the official ViT-B in 200 epochs."""

    norm_pixels: bool = False
    guided_share: float = Field(0.5, ge=0, le=1)
    """Share of the masked patches that the teacher chooses at the end of the training; it grows from 0."""
    growth_steps: int | None = Field(None, ge=1)
    """guided_share and tau change at the beginning of this many equal parts of the training. Officially each epoch is
    one part. Absent: they change with each step."""
    tau_start: float = Field(0.999, ge=0, le=1)
    """What the teacher keeps of itself at each step, to begin with."""
    tau_end: float = Field(0.9999, ge=0, le=1)
    tau_share: float = Field(0.5, gt=0, le=1)
    """Share of the training over which tau goes in a straight line from tau_start to tau_end."""


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
        guided = int(masked * self.guided_share(progress))
        if not guided:
            return self.sample_mask(len(images), generator)
        return guided_mask(self.teacher.module.predicted_errors(images), masked, guided, generator)

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        return self(batch.images, self.sample_guided_mask(batch.images, batch.progress, generator))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """Reconstruction loss and ranking loss, added. `mask` has as many masked patches as those of `sample_mask`."""
        target, mask = self.target(images), resize_mask(mask, self.encoder.grid)
        x = self.decoder_input(images, visible_indices(mask, self.visible))
        prediction = self.decode_pixels(x)
        reconstruction = self.loss(prediction, target, mask)
        masked = visible_indices(~mask, mask[0].numel() - self.visible)
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

    def guided_share(self, progress: float) -> float:
        """Share of the masked patches that the teacher chooses in the step that begins at `progress`, in [0, 1)."""
        parts = self.config.growth_steps
        return self.config.guided_share * (progress if parts is None else (self._part(progress) + 1) / parts)

    def tau(self, progress: float) -> float:
        """What the teacher keeps of itself in the step that begins at `progress`, in [0, 1)."""
        config, parts = self.config, self.config.growth_steps
        progress = progress if parts is None else self._part(progress) / parts
        return config.tau_at(progress)

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self, self.tau(self.progress))

    def _part(self, progress: float) -> int:
        """Which of the `growth_steps` parts of the training `progress` lies in, from 0."""
        return int(progress * (self.config.growth_steps or 1) + 1e-6)


def rank(predicted: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of which patch of a pair has the greater error, mean over the pairs of all images.

    Args:
        predicted: [B, M]; the difference of two is the logit.
        errors: [B, M], the true ones. Pairs of equal errors do not count.

    Returns:
        The loss, and the share of pairs whose order is right, without gradient.
    """
    logits = predicted.unsqueeze(2) - predicted.unsqueeze(1)
    difference = errors.unsqueeze(2) - errors.unsqueeze(1)
    counted = difference != 0
    # The official code adds 1e-6 inside of the logarithms.
    surprise = -torch.where(difference > 0, (logits.sigmoid() + 1e-6).log(), (1 - logits.sigmoid() + 1e-6).log())
    count = mean_over_shares(counted.sum(), least=1)
    right = ((logits.detach() * difference > 0) & counted).sum() / count
    return (surprise * counted).sum() / count, right
