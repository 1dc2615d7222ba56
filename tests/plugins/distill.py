"""Feature distillation, as EVA (arXiv:2211.07636) does: predict a frozen teacher's features of masked patches."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from mimbench.api import Config, Encoder, InputError, Method, Teacher, mean_over_masked, random_mask


class DistillConfig(Config):
    teacher: Path
    """A safetensors file of a timm ViT. Its content is part of the fingerprint, its name is not."""
    teacher_model: str = "vit_tiny_patch16_224"
    """The model's name in timm. It is built for the encoder's image size and patches."""
    mask_ratio: float = Field(0.4, gt=0, lt=1)


class Distill(Method):
    """Fang et al., EVA: Exploring the Limits of Masked Visual Representation Learning at Scale."""

    name = "distill"
    version = "1"
    paper = "https://arxiv.org/abs/2211.07636"
    not_stored = ("teacher.",)
    Config = DistillConfig
    config: DistillConfig

    def __init__(self, config: DistillConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        teacher = timm.create_model(
            config.teacher_model, img_size=encoder.image_size, patch_size=encoder.patch_size,
            in_chans=encoder.in_channels, num_classes=0,
        )  # fmt: skip
        try:
            teacher.load_state_dict(load_file(config.teacher))
        except RuntimeError as error:
            raise InputError(
                f"method.teacher {config.teacher} holds other weights: {str(error).splitlines()[1].strip()}"
            ) from error
        self.teacher = Teacher(teacher)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.out_dim, teacher.num_features)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, D], each patch normalised over its channels."""
        teacher = self.teacher.module
        tokens = teacher.forward_features(images)[:, teacher.num_prefix_tokens :]
        return F.layer_norm(tokens, tokens.shape[-1:]).unflatten(1, self.encoder.grid)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.encoder.encode_masked(images, mask, self.mask_token).permute(0, 2, 3, 1))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return mean_over_masked(1 - F.cosine_similarity(prediction, target, dim=-1), mask)
