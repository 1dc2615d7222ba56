"""I-JEPA: from the patches of a context block, predict a slow teacher's features of other blocks."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import (
    Encoder,
    MultiBlockMask,
    OfficialCode,
    Predictor,
    StepOutput,
    Teacher,
    at_least_float32,
    init_normal,
    multi_block_mask,
    ramp,
)
from mimbench_methods._ijepa_options import IJEPAConfig
from mimbench_methods._slow_teachers import EncoderTeacher, variance_over_tokens
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.ijepa import OfficialIJEPA


class IJEPA(EncoderTeacher, DecaysTokens):
    """Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture (CVPR 2023).

    arXiv:2301.08243. The licence of the reference code is CC-BY-NC 4.0; none of it is used here.
    """

    name: ClassVar[str] = "ijepa"
    version: ClassVar[str] = "1"
    paper: ClassVar[str] = "https://arxiv.org/abs/2301.08243"
    reference: ClassVar[str] = "https://github.com/facebookresearch/ijepa@52c1ae95d05f743e000e8f10a1f3a79b10cff048"
    predicts: ClassVar[str] = "teacher's features of target blocks"
    sees: ClassVar[str] = "patches of a context block"
    networks: ClassVar[tuple[str, ...]] = ("EMA teacher", "predictor")
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    official: ClassVar[OfficialCode | None] = OfficialIJEPA()
    Config = IJEPAConfig
    config: IJEPAConfig

    def __init__(self, config: IJEPAConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # impossible blocks are refused now, not at the first step
        self.predictor = Predictor(
            encoder.out_dim,
            encoder.out_dim,
            dim=config.predictor_dim,
            depth=config.predictor_depth,
            num_heads=config.predictor_heads,
            mlp_ratio=config.predictor_mlp_ratio,
            grid=encoder.grid,
        )
        init_normal(self)
        self.teacher = Teacher(encoder)

    def sample_mask(self, batch: int, generator: torch.Generator) -> MultiBlockMask:
        names = {"targets", "target_scale", "target_aspect", "context_scale", "min_context", "allow_overlap"}
        return multi_block_mask(batch, self.encoder.grid, generator, **self.config.model_dump(include=names))

    def masked_cells(self, mask: MultiBlockMask) -> Tensor:
        return mask.masked()

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """[B, N, D] from the whole images: each patch normalised over its channels, after the teacher's own norm."""
        tokens = at_least_float32(self.teacher.module.features(images).patches)
        return F.layer_norm(tokens, tokens.shape[-1:])

    def predict(self, images: Tensor, mask: MultiBlockMask) -> Tensor:
        """[B, M, T, D]: M blocks of T patches. Blocks do not see each other."""
        context = self.encoder.forward_tokens(self.encoder.embed(images), mask.context).sequence
        return torch.stack([self.predictor(context, mask.context, block) for block in mask.targets], 1)

    def loss(self, prediction: Tensor, target: Tensor, mask: MultiBlockMask) -> Tensor:
        """Smooth L1, mean over all patches of all blocks. target: [B, N, D]."""
        return F.smooth_l1_loss(at_least_float32(prediction), self.target_blocks(target, mask))

    def target_blocks(self, target: Tensor, mask: MultiBlockMask) -> Tensor:
        """The target at the patches of each block: [B, M, T, D]."""
        rows = torch.arange(len(target), device=target.device)[:, None]
        return torch.stack([target[rows, block] for block in mask.targets], 1)

    def forward(self, images: Tensor, mask: MultiBlockMask) -> StepOutput:
        """Logs the variance of the target over the patches of the batch: near 0 if training has collapsed."""
        target = self.target(images)
        loss = self.loss(self.predict(images, mask), target, mask)
        return StepOutput(loss, {"target_variance": variance_over_tokens(target)})

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student, with the momentum of the progress before the step."""
        self.teacher.follow(self.encoder, self.momentum(self.progress))

    def momentum(self, progress: float) -> float:
        """What the teacher keeps of itself in the step that begins at `progress`, in [0, 1]."""
        return ramp(progress, self.config.momentum_start, self.config.momentum_end)
