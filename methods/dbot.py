"""dBOT: predict the features of a frozen teacher, which the student replaces at the end of each stage."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    InputError,
    OfficialCode,
    PretrainConfig,
    StepOutput,
    Teacher,
    at_least_float32,
    check_mask_ratios,
    init_xavier,
    masked_count,
    random_mask,
    rebuild_encoder,
)
from mimbench_methods._dbot_options import DBOTConfig
from mimbench_methods._places import visible_and_masked
from mimbench_methods._slow_teachers import variance_over_tokens
from mimbench_methods._stages import StagedMethod
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.dbot import OfficialDBOT


class DBOT(StagedMethod, DecaysTokens):
    """Liu et al., Exploring Target Representations for Masked Autoencoders (ICLR 2024, arXiv:2209.03917).

    The reference code is under the Apache 2.0 licence; none of it is used here. There are no golden vectors.
    """

    name: ClassVar[str] = "dbot"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "teacher's features at masked patches and at the class token"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("decoder", "frozen teacher that stages replace")
    paper: ClassVar[str] = "https://arxiv.org/abs/2209.03917"
    reference: ClassVar[str] = "https://github.com/liuxingbin/dbot@e935478ab59f62a9cb61ddeb538fcd626fd54407"
    official: ClassVar[OfficialCode | None] = OfficialDBOT()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    Config = DBOTConfig
    config: DBOTConfig

    def __init__(self, config: DBOTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        self.decoder = config.build_decoder(encoder)
        init_xavier(self)
        self.teacher = Teacher(encoder)
        self.start_stages(config.stages)

    @classmethod
    def check_training(cls, config: DBOTConfig, pretrain: PretrainConfig) -> None:
        """Each stage has a learning rate schedule to itself."""
        stages, cycles = config.stages, pretrain.schedule.cycles
        if stages != cycles:
            raise InputError(
                f"method.stages {stages} and pretrain.schedule.cycles {cycles} differ, and a stage is one cycle of the "
                "learning rate; give both the same value"
            )

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """The same number of masked patches in each image, so that the visible ones form a batch."""
        return random_mask(batch, self.encoder.grid, self.config.ratio_at(self.progress), generator, rounding="mae")

    def student(self) -> nn.ModuleList:
        return nn.ModuleList([self.encoder, self.decoder])

    def make_student(self) -> nn.ModuleList:
        fresh = nn.ModuleList([rebuild_encoder(self.encoder), self.config.build_decoder(self.encoder)])
        init_xavier(fresh)
        return fresh

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """[B, P + N, D] from the whole images: the teacher's features of prefix tokens and patches."""
        teacher = self.teacher.module
        (last,) = teacher.forward_layers(teacher.embed(images), (-1,), final_norm=self.config.final_norm)
        features = at_least_float32(last.sequence)
        if not self.config.norm_target:
            return features
        return (features - features.mean(-1, keepdim=True)) / (features.var(-1, keepdim=True) + 1e-6).sqrt()

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, P + T, D] at prefix tokens and at the T masked patches, in row-major order."""
        return self._predict(images, *visible_and_masked(mask, self.encoder.grid))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor, masked: Tensor | None = None) -> Tensor:
        """Smooth L1, mean over prefix tokens and masked patches together.

        Args:
            prediction: as of `predict`.
            target: [B, P + N, D].
            mask: bool [B, Gh, Gw].
            masked: indices of the masked patches, int64 [B, T], if they are known.
        """
        masked = visible_and_masked(mask, self.encoder.grid)[1] if masked is None else masked
        prefix = self.encoder.num_prefix_tokens
        patches = target[:, prefix:].gather(1, masked.unsqueeze(-1).expand(-1, -1, target.shape[-1]))
        chosen = torch.cat((target[:, :prefix], patches), 1)
        return F.smooth_l1_loss(at_least_float32(prediction), chosen, beta=self.config.beta)

    def _predict(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        context = self.encoder.forward_tokens(self.encoder.embed(images), visible).sequence
        return self.decoder(context, visible, masked, with_prefix=True)

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`, so that an accelerator is not synchronised.

        Logs the variance of the target over the tokens of the batch: near 0 if they hardly differ.
        """
        target = self.target(images)
        count = masked_count(prod(self.encoder.grid), self.config.ratio_at(self.progress), "mae")
        visible, masked = visible_and_masked(mask, self.encoder.grid, count)
        loss = self.loss(self._predict(images, visible, masked), target, mask, masked)
        return StepOutput(loss, {"target_variance": variance_over_tokens(target)})
