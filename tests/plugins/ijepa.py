"""I-JEPA (arXiv:2301.08243): from the patches of a context block, predict a teacher's features of other blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Config,
    Depth,
    Encoder,
    Method,
    MultiBlockMask,
    Predictor,
    Teacher,
    init_truncated,
    multi_block_mask,
    ramp,
)


class IJEPAConfig(Config):
    """The defaults are those of the paper's ViT-H/14."""

    targets: int = Field(4, ge=1)
    """Blocks to predict per image."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_context: int = Field(11, ge=1)
    """Least number of context patches."""
    predictor_dim: int = Field(384, ge=4)
    predictor_depth: Depth = Field(12, ge=1)
    predictor_heads: int = Field(16, ge=1)
    momentum: float = Field(0.996, ge=0, le=1)
    """Of the teacher at the start; it rises to 1 in a straight line."""


class IJEPA(Method):
    """Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture."""

    name = "i-jepa"
    version = "1"
    paper = "https://arxiv.org/abs/2301.08243"
    reference = "https://github.com/facebookresearch/ijepa@52c1ae95d05f743e000e8f10a1f3a79b10cff048"
    encoder_needs = frozenset({"visible-only"})
    Config = IJEPAConfig
    config: IJEPAConfig

    def __init__(self, config: IJEPAConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # impossible blocks are refused now
        self.predictor = Predictor(
            encoder.out_dim, encoder.out_dim, dim=config.predictor_dim, depth=config.predictor_depth,
            num_heads=config.predictor_heads, grid=encoder.grid,
        )  # fmt: skip
        init_truncated(self.predictor)
        self.teacher = Teacher(encoder)

    def sample_mask(self, batch: int, generator: torch.Generator) -> MultiBlockMask:
        options = self.config.model_dump(
            include={"targets", "target_scale", "target_aspect", "context_scale", "min_context"}
        )
        return multi_block_mask(batch, self.encoder.grid, generator, **options)

    def masked_cells(self, mask: MultiBlockMask) -> Tensor:
        return mask.masked()

    def target(self, images: Tensor) -> Tensor:
        """[B, N, D], each patch normalised over its channels."""
        tokens = self.teacher.module.features(images).patches
        return F.layer_norm(tokens, tokens.shape[-1:])

    def predict(self, images: Tensor, mask: MultiBlockMask) -> Tensor:
        """[M, B, T, D]. Blocks do not see each other."""
        context = self.encoder.forward_tokens(self.encoder.embed(images), mask.context).sequence
        return torch.stack([self.predictor(context, mask.context, block) for block in mask.targets])

    def loss(self, prediction: Tensor, target: Tensor, mask: MultiBlockMask) -> Tensor:
        rows = torch.arange(len(target), device=target.device)[:, None]
        return F.smooth_l1_loss(prediction, torch.stack([target[rows, block] for block in mask.targets]))

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, ramp(progress, self.config.momentum, 1.0))

    def exported_encoder(self) -> Encoder:
        return self.teacher.release()
