"""A method of two views: a masked view predicts what a slow teacher sees in another view of the same image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    Config,
    Encoder,
    InputConfig,
    Method,
    StepOutput,
    Teacher,
    View,
    ramp,
    random_mask,
)


class AgreeConfig(Config):
    mask_ratio: float = 0.5
    """Fraction of the second view's patches that are masked."""
    momentum: float = 0.99
    """Of the teacher at the start of the training; it rises to 1."""


class Agree(Method):
    """Predict the teacher's mean feature of one crop from another crop that is masked."""

    name = "agree"
    version = "1"
    encoder_needs = frozenset({"mask-tokens"})
    Config = AgreeConfig
    config: AgreeConfig

    def __init__(self, config: AgreeConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.teacher = Teacher(encoder)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        width = 4 * encoder.out_dim
        self.predictor = nn.Sequential(nn.Linear(encoder.out_dim, width), nn.GELU(), nn.Linear(width, encoder.out_dim))

    @classmethod
    def views(cls, config: AgreeConfig, input: InputConfig) -> Sequence[InputConfig]:
        return (input, View.from_input(input, crop_scale=(0.3, 1.0), blur=0.5))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        plain, blurred = batch.views
        mask = self.sample_mask(len(blurred), generator)
        seen = self.encoder.encode_masked(blurred, mask, self.mask_token).mean((2, 3))
        with torch.no_grad():
            target = self.teacher.module.features(plain).pooled
        agreement = F.cosine_similarity(self.predictor(seen), target).mean()
        return StepOutput(1 - agreement, {"agreement": agreement.detach()})

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, ramp(self.config.momentum, 1.0, progress))
