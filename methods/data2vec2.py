"""data2vec 2.0: several masks of an image share one pass of the teacher; the encoder sees visible patches only."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import (
    Batch,
    Encoder,
    OfficialCode,
    StepOutput,
    Teacher,
    at_least_float32,
    check_mask_ratios,
    mean_over_masked,
    repeat_per_mask,
    resize_mask,
    visible_blocks_mask,
    visible_indices,
)
from mimbench_methods._conv_decoder import fill_with_noise
from mimbench_methods._data2vec2_options import Data2Vec2Config
from mimbench_methods._fairseq_weights import init_as_fairseq
from mimbench_methods._slow_teachers import EncoderTeacher, variance_logs
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.data2vec2 import OfficialData2Vec2


class Data2Vec2(EncoderTeacher, DecaysTokens):
    """Baevski et al., Efficient Self-supervised Learning with Contextualized Target Representations (ICML 2023).

    arXiv:2212.07525. The reference code is under the MIT licence; none of it is used here. There are no golden vectors.
    """

    name: ClassVar[str] = "data2vec2"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "teacher's features at masked patches, and their mean"
    sees: ClassVar[str] = "visible patches, of several masks"
    networks: ClassVar[tuple[str, ...]] = ("convolutional decoder", "EMA teacher")
    paper: ClassVar[str] = "https://arxiv.org/abs/2212.07525"
    reference: ClassVar[str] = "https://github.com/facebookresearch/fairseq@3d262bb"
    official: ClassVar[OfficialCode | None] = OfficialData2Vec2()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "mlp-outputs"})
    Config = Data2Vec2Config
    config: Data2Vec2Config

    def __init__(self, config: Data2Vec2Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        config.check_encoder(encoder)
        self.decoder = config.build_decoder(encoder)
        init_as_fairseq(encoder)
        self.teacher = Teacher(encoder)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        config, grid, ratio = self.config, self.encoder.grid, self.config.ratio_at(self.progress)
        return visible_blocks_mask(batch, grid, ratio, generator, block=config.mask_block, adjust=config.mask_adjust)

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        return self(batch.images, self.sample_mask(self.config.masks * len(batch.images), generator))

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """[B, P + N, D] from the whole images: the mean over all patches for the class token, if P is 1; the patches.

        Each layer is normalised over the patches of the image, channel by channel; their mean over its channels.
        """
        encoder, config = self.teacher.module, self.config
        tokens = encoder.embed(images)
        use_mlp = config.target_output == "mlp"
        layers = encoder.mlp_outputs(tokens) if use_mlp else encoder.forward_layers(tokens, final_norm=False)
        # Instance norm: [B, D, N], each channel of an image by its own mean and variance over the patches.
        normed = [F.instance_norm(at_least_float32(layer.patches.mT)).mT for layer in layers[-config.target_layers :]]
        mean = torch.stack(normed).mean(0)
        patches = F.layer_norm(mean, mean.shape[-1:])
        return torch.cat((patches.mean(1, keepdim=True), patches), 1) if config.class_weight else patches

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B * M, P + N, D] as `target`, for M masks per image: those of an image follow each other."""
        mask = resize_mask(mask, self.encoder.grid)
        return self._predict(images, mask, visible_indices(mask))

    def _predict(self, images: Tensor, mask: Tensor, keep: Tensor) -> Tensor:
        """keep: int64 [B * M, K], the visible patches of `mask`."""
        tokens = repeat_per_mask(self.encoder.embed(images), keep)
        seen = self.encoder.forward_tokens(tokens, keep)
        grid = fill_with_noise(seen.patches, keep, mask[0].numel(), self.config.noise_std)
        patches = self.decoder(grid.unflatten(1, self.encoder.grid)).flatten(1, 2)
        # The class token itself is the prediction; register tokens that follow it are not used.
        return torch.cat((seen.prefix[:, :1], patches), 1) if self.config.class_weight else patches

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, summed over the channels and divided by the root of their number.

        The mean over all masked patches of the batch, and `class_weight` times the mean over the class tokens.
        """
        target = repeat_per_mask(target, prediction)
        error = (at_least_float32(prediction) - target).square().sum(-1) / target.shape[-1] ** 0.5
        prefix = int(bool(self.config.class_weight))
        loss = mean_over_masked(error[:, prefix:].unflatten(1, self.encoder.grid), mask)
        return loss + self.config.class_weight * error[:, 0].mean() if prefix else loss

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` [B * M, Gh, Gw] has as many visible patches as those of `sample_mask`.

        So an accelerator is not synchronised. Logs variances over the patches of the batch: near 0 if training has
        collapsed.
        """
        target = self.target(images)
        mask = resize_mask(mask, self.encoder.grid)
        visible = int(prod(self.encoder.grid) * (1 - self.config.ratio_at(self.progress)))
        prediction = self._predict(images, mask, visible_indices(mask, visible))
        logs = variance_logs(target, prediction)
        return StepOutput(self.loss(prediction, target, mask), logs)

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student, with the tau of the progress after the step."""
        self.teacher.follow(self.encoder, self.config.tau_at(progress))
