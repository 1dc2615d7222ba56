"""iBOT: predict a slow teacher's class token of another view, and its patch tokens of the same view where masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    Encoder,
    InputConfig,
    OfficialCode,
    StepOutput,
    Teacher,
    at_least_float32,
    cancel_gradients,
    ramp,
    replace_masked,
    rows_of_views,
)
from mimbench_methods._centred_targets import CentredTargets, loss_between_views, loss_of_patches, sharpened
from mimbench_methods._ibot_options import IBOTConfig, augmented_views
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.ibot import OfficialIBOT


class IBOT(CentredTargets, DecaysTokens):
    """Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer (ICLR 2022, arXiv:2111.07832).

    One head for class and patch tokens, as in the official recipes. Licence of the reference code: Apache 2.0.
    """

    name: ClassVar[str] = "ibot"
    version: ClassVar[str] = "1"
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.07832"
    reference: ClassVar[str] = "https://github.com/bytedance/ibot@da316d82636a7a7356835ef224b13d5f3ace0489"
    predicts: ClassVar[str] = "teacher's tokens at masked patches, and its class token of another view"
    sees: ClassVar[str] = "two views with mask tokens, and local crops"
    networks: ClassVar[tuple[str, ...]] = ("EMA teacher", "projection head")
    encoder_needs: ClassVar[frozenset[str]] = frozenset(
        {"mask-tokens", "separate-patches", "one-grid", "class-token", "any-size"}
    )
    official: ClassVar[OfficialCode | None] = OfficialIBOT()
    Config = IBOTConfig
    config: IBOTConfig

    def __init__(self, config: IBOTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(2, torch.Generator())  # an impossible mask is refused now, not at the first step
        config.check_local_size(encoder.patch_size)
        self.head = config.build_head(encoder)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        for name, parameter in encoder.named_parameters():
            if name.endswith("cls_token"):
                nn.init.trunc_normal_(parameter, std=0.02)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.start_centres(config.out_dim)
        self._epoch = 0

    @classmethod
    def views(cls, config: IBOTConfig, input: InputConfig) -> Sequence[InputConfig]:
        """Two global views, which may be masked, and the local ones."""
        return augmented_views(config, input)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Each sample draws its own mask ratio, so that by default half of the masks are empty."""
        return self.config.draw_mask(batch, self.encoder.grid, generator)

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """The teacher's logits of all tokens of whole images: [B, P + N, K]."""
        return at_least_float32(self.teacher_head(self.teacher.module.features(images).sequence))

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """The student's logits of all tokens: [B, P + N, K]."""
        return at_least_float32(self.head(self.student_tokens(images, mask)))

    def student_tokens(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, P + N, D], with the mask token in place of each masked patch."""
        tokens = replace_masked(self.encoder.embed(images), mask, self.mask_token)
        return self.encoder.forward_tokens(tokens).sequence

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of masked patches: mean over each image, then over images. An empty mask counts as 0."""
        start, config = self.encoder.num_prefix_tokens, self.config
        temperature = config.temperature_at(self._epoch, config.patch_temperature)
        target = sharpened(target[:, start:], self.patch_centre, temperature)
        return loss_of_patches(prediction[:, start:] / config.student_temperature, target, mask.flatten(1))

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        self._epoch = batch.epoch
        with rows_of_views(2):
            mask = self.sample_mask(2 * len(batch.images), generator)
        return self.compare(batch.views[:2], batch.views[2:], mask)

    def compare(self, views: Sequence[Tensor], crops: Sequence[Tensor], mask: Tensor) -> StepOutput:
        """The loss of two views and of local crops, [B, C, S, S] each. mask: [2 B, Gh, Gw] of the views."""
        images, config = torch.cat(tuple(views)), self.config
        with rows_of_views(len(views)):
            target, prediction = self.target(images), self.predict(images, mask)
        with rows_of_views(len(crops)):
            local = self.local_logits(torch.cat(tuple(crops))).chunk(len(crops)) if crops else ()
        tokens = (*prediction[:, 0].chunk(2), *local)
        class_target = sharpened(target[:, 0], self.centre, config.temperature_at(self._epoch, config.temperature))
        between = loss_between_views(tokens, class_target.chunk(2), config.student_temperature)
        within = self.loss(prediction, target, mask)
        self.follow_means(target, config.centre_momentum)
        loss = config.class_weight * between + config.patch_weight * within
        return StepOutput(loss, {"class": between.detach(), "patches": within.detach()})

    def local_logits(self, crops: Tensor) -> Tensor:
        """The student's logits of the class token of crops, which are never masked: [B, K]."""
        return at_least_float32(self.head(self.encoder.features(crops).prefix[:, 0]))

    def before_update(self, progress: float) -> None:
        if self._epoch < self.config.freeze_epochs:
            cancel_gradients(self.head.last)

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student, with the momentum of the progress before the step."""
        momentum = ramp(self.progress, self.config.momentum_start, 1.0, "cosine")
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)
