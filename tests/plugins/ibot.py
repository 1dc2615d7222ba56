"""iBOT (arXiv:2111.07832): predict a teacher's class token of another view, and its patch tokens where masked."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Batch,
    Config,
    Encoder,
    InputConfig,
    Method,
    ProjectionHead,
    StepOutput,
    Teacher,
    block_mask,
    cancel_gradients,
    mean_over_ranks,
    ramp,
    replace_masked,
)


class IBOTConfig(Config):
    """The defaults are those of the paper's ViT-S/16."""

    crop_scale: tuple[float, float] = (0.25, 1.0)
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    unmasked_views: float = Field(0.5, ge=0, le=1)
    out_dim: int = Field(8192, ge=2)
    hidden_dim: int = Field(2048, ge=1)
    temperature: tuple[float, float] = (0.04, 0.07)
    """Of the teacher: at the start, and after the fraction `warmup` of the training. The student's is 0.1."""
    warmup: float = Field(0.0375, ge=0, le=1)
    freeze: float = Field(0.00125, ge=0, le=1)
    """Fraction of the training in which the head's last layer stays as it is."""
    momentum: float = Field(0.996, ge=0, le=1)


class IBOT(Method):
    """Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer. One head for both losses; no local crops."""

    name = "ibot"
    version = "1"
    paper = "https://arxiv.org/abs/2111.07832"
    reference = "https://github.com/bytedance/ibot@da316d82636a7a7356835ef224b13d5f3ace0489"
    encoder_needs = frozenset({"class-token"})
    Config = IBOTConfig
    waivers = {"one_batch_overfits": "the teacher's targets move and sharpen"}  # noqa: RUF012

    def __init__(self, config: IBOTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.head = ProjectionHead(encoder.out_dim, config.out_dim, hidden_dim=config.hidden_dim, fixed_gain=False)
        self.mask_token = torch.nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.register_buffer("centre", torch.zeros(2, config.out_dim))

    @classmethod
    def views(cls, config: IBOTConfig, input: InputConfig) -> tuple[InputConfig, ...]:
        return (input.model_copy(update={"crop_scale": config.crop_scale}),) * 2

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        grid, draws = self.encoder.grid, torch.rand(batch + 1, generator=generator, device=generator.device)
        ratio = float(torch.lerp(*torch.tensor(self.config.mask_ratio), draws[0].cpu()))
        count = int(ratio * grid[0] * grid[1])
        mask = block_mask(batch, grid, count, generator, min_block=min(count, (min(grid) // 3) ** 2))
        return mask & (draws[1:] >= self.config.unmasked_views)[:, None, None]

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        views = torch.cat(batch.views)
        mask = self.sample_mask(len(views), generator)
        with torch.no_grad():
            outputs = self.teacher_head(self.teacher.module.features(views).sequence)
            heat = ramp(batch.progress, *self.config.temperature, warmup=self.config.warmup)
            cls, patches = outputs[:, 0], outputs[:, self.encoder.num_prefix_tokens :]
            other = ((cls - self.centre[0]) / heat).softmax(-1).roll(len(views) // 2, 0)
            same = ((patches - self.centre[1]) / heat).softmax(-1)
            means = mean_over_ranks(torch.stack((cls.mean(0), patches.mean((0, 1)))))
            self.centre.lerp_(means.to(self.centre.dtype), 0.1)
        tokens = replace_masked(self.encoder.embed(views), mask, self.mask_token)
        logits = (self.head(self.encoder.forward_tokens(tokens).sequence).float() / 0.1).log_softmax(-1)
        between = -(other * logits[:, 0]).sum(-1).mean()
        errors, masked = -(same * logits[:, self.encoder.num_prefix_tokens :]).sum(-1), mask.flatten(1)
        within = ((errors * masked).sum(1) / masked.sum(1).clamp(min=1)).mean()
        return StepOutput(between + within, {"class": between.detach(), "patches": within.detach()})

    def before_update(self, progress: float) -> None:
        if progress < self.config.freeze:
            cancel_gradients(self.head.last)

    def after_step(self, progress: float) -> None:
        momentum = ramp(progress, self.config.momentum, 1.0, "cosine")
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)

    def exported_encoder(self) -> Encoder:
        return self.teacher.release()
