"""Options of CAPI."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mimbench.api import Depth, Encoder, MaskRatioConfig, PartOptions, RotaryPredictor, ramp
from mimbench_methods._online_clusters import OnlineClusters


class CAPIConfig(MaskRatioConfig):
    """The defaults are those of the official ViT-L/14."""

    mask_ratio: float = Field(0.65, gt=0, lt=1)
    predicted_share: float = Field(0.05, gt=0, le=1)
    """Share of the masked patches that are predicted, chosen at random, rounded down."""
    aspect: tuple[float, float] = (0.5, 2.0)
    """Least and greatest height / width of the block of visible patches."""
    roll: bool = True
    """The block may go over an end of the grid and continue at the other end."""
    clusters: int = Field(16384, ge=2)
    target_temp: float = Field(0.06, gt=0)
    """Temperature of the teacher's assignments."""
    cluster_temp: float = Field(0.12, gt=0)
    """Temperature of the clusters in their loss."""
    student_temp: float = Field(0.12, gt=0)
    """Temperature of the prediction."""
    sinkhorn_steps: int = Field(3, ge=1)
    per_position: bool = True
    """Clusters are balanced over the images of a batch at each position. False: over all patches of the batch."""
    predictor_dim: int = Field(1024, ge=4)
    predictor_depth: Depth = Field(12, ge=1)
    predictor_heads: int = Field(16, ge=1)
    predictor_drop_path: float = Field(0.2, ge=0, lt=1)
    """Of every block."""
    momentum: float = Field(0.999, ge=0, le=1)
    """What the teacher keeps of itself at each step after the warmup."""
    momentum_warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the training in which it falls from 1 to `momentum` in a straight line."""
    momentum_cosine_share: float = Field(0.8, gt=0, le=1)
    """Then it rises towards 1 on this share of half a cosine."""
    cluster_lr_scale: float = Field(0.5, gt=0)
    """Learning rate of the clusters, relative to that of the training."""
    cluster_weight_decay: float = Field(0.01, ge=0)
    patch_embed_lr_scale: float = Field(0.2, gt=0)
    """Learning rate of the patch embedding, relative to that of the training."""
    norm_weight_decay: float = Field(0.01, ge=0)
    """Weight decay of the weights of norms."""
    export: Literal["student", "teacher"] = "teacher"
    """Whose encoder the tasks get."""

    def momentum_at(self, progress: float) -> float:
        """What the teacher keeps of itself in the step that begins at `progress` of the training, in [0, 1]."""
        if progress < self.momentum_warmup:
            return ramp(progress, 1.0, self.momentum, warmup=self.momentum_warmup)
        share = self.momentum_cosine_share * (progress - self.momentum_warmup) / (1 - self.momentum_warmup)
        return ramp(share, self.momentum, 1.0, "cosine")

    def build_predictor(self, encoder: Encoder) -> RotaryPredictor:
        return RotaryPredictor(
            encoder.out_dim,
            dim=self.predictor_dim,
            depth=self.predictor_depth,
            num_heads=self.predictor_heads,
            drop_path=self.predictor_drop_path,
        )

    def build_clusters(self, encoder: Encoder) -> OnlineClusters:
        return OnlineClusters(
            encoder.out_dim,
            self.clusters,
            target_temp=self.target_temp,
            temp=self.cluster_temp,
            sinkhorn_steps=self.sinkhorn_steps,
            per_position=self.per_position,
        )

    def optimizer_parts(self, encoder: Encoder) -> dict[str, PartOptions]:
        """Of clusters, norms and the patch embedding, by patterns of names of the method's parameters."""
        parts = {
            "clusters.": PartOptions(self.cluster_lr_scale, self.cluster_weight_decay),
            "*norm*.weight": PartOptions(weight_decay=self.norm_weight_decay),
        }
        if any("patch_embed" in name for name, _ in encoder.named_parameters()):
            parts["encoder.*patch_embed*"] = PartOptions(self.patch_embed_lr_scale)
        return parts
