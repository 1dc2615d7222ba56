"""A small discrete VAE, trained on the same images as the method."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Batch, ScheduleConfig, Stage, StepOutput, TrainConfig, draw_rows
from mimbench_methods.tokenizers.base import FittedTokenizer, TokenizerConfig

COOLEST = 1 / 16
"""Temperature of the relaxation at the end of training; 1 at the start (Ramesh et al., arXiv:2102.12092, A.2)."""


class DVAEConfig(TokenizerConfig):
    """Its size and its training, always in fp32, so that a run's device does not change its words."""

    width: int = Field(64, ge=1)
    """Channels of the hidden layers."""
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    base_lr: float = Field(1e-3, gt=0)
    """Absolute."""
    kl_weight: float = Field(1e-2, ge=0)
    """Of the divergence from the uniform distribution (nats per word), relative to the squared error per pixel.

    Without it, few words are used."""


class DVAE(nn.Module):
    """Convolutions to word scores at one cell per patch, and back; trained through a Gumbel-softmax."""

    temperature: Tensor

    def __init__(self, config: DVAEConfig, *, patch_size: int, channels: int) -> None:
        super().__init__()
        self.kl_weight, width = config.kl_weight, config.width
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for factor in _prime_factors(patch_size):
            # Kernel, stride, padding: overlapping windows that divide a side by `factor` exactly.
            window = (2 * factor - factor % 2, factor, factor // 2)
            down += [nn.Conv2d(width if down else channels, width, *window), nn.ReLU(), _Residual(width)]
            up += [nn.ConvTranspose2d(width, width, *window), nn.ReLU(), _Residual(width)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(width if down else channels, config.vocabulary, 1))
        self.decoder = nn.Sequential(nn.Conv2d(config.vocabulary, width, 1), *up, nn.Conv2d(width, channels, 1))
        self.register_buffer("temperature", torch.tensor(1.0))

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        """Squared error of the reconstruction from relaxed words, plus the weighted divergence."""
        scores = self.encoder(batch.images)

        def draw(rows: int) -> Tensor:
            like = scores if rows == len(scores) else torch.cat([scores.detach()] * (rows // len(scores)))
            return torch.empty_like(like).exponential_(generator=generator)

        noise = -draw_rows(draw, len(scores)).log()
        relaxed = ((scores + noise) / self.temperature).softmax(1)
        error = F.mse_loss(self.decoder(relaxed), batch.images)
        logs = scores.log_softmax(1)
        divergence = (logs.exp() * logs).sum(1).mean() + math.log(scores.shape[1])
        return StepOutput(error + self.kl_weight * divergence, {"error": error.detach(), "kl": divergence.detach()})

    def after_step(self, progress: float) -> None:
        self.temperature.fill_(COOLEST**progress)


class DVAETokenizer(FittedTokenizer):
    """A patch's word is the encoder's highest score."""

    name: ClassVar[str] = "dvae"
    Config = DVAEConfig
    config: DVAEConfig

    def __init__(self, config: DVAEConfig, *, patch_size: int, channels: int) -> None:
        super().__init__(config, patch_size=patch_size, channels=channels)
        self.dvae = DVAE(config, patch_size=patch_size, channels=channels)

    def _tokens(self, images: Tensor) -> Tensor:
        return self.dvae.encoder(images).argmax(1)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.dvae.decoder(F.one_hot(tokens, self.vocabulary).permute(0, 3, 1, 2).float())

    def fitted(self, stage: Stage) -> Mapping[str, Tensor]:
        config = self.config
        train = TrainConfig(
            epochs=config.epochs,
            batch_size=config.batch_size,
            base_lr=config.base_lr,
            weight_decay=0.0,
            clip_grad=1.0,
            schedule=ScheduleConfig(min_lr=config.base_lr / 100),
            precision="fp32",
        )
        model = copy.deepcopy(self.dvae).requires_grad_(True)
        stage.fit(model, train, label="discrete VAE", options="method.dvae")
        return {f"dvae.{key}": value for key, value in model.state_dict().items()}


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _prime_factors(number: int) -> list[int]:
    """Smallest first: a patch of 16 px is halved four times."""
    for factor in range(2, number + 1):
        if number % factor == 0:
            return [factor, *_prime_factors(number // factor)]
    return []
