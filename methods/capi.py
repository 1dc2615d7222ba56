"""CAPI: from visible patches, predict the clusters to which a slow teacher's features of masked patches belong."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    PartOptions,
    StepOutput,
    Teacher,
    WeightNormLinear,
    at_least_float32,
    check_mask_ratios,
    init_xavier,
)
from mimbench_methods._capi_options import CAPIConfig
from mimbench_methods._online_clusters import cross_entropy, entropy
from mimbench_methods._predicted_cells import PredictedCells, draw_predicted_cells
from mimbench_methods._slow_teachers import EncoderTeacher
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.capi import OfficialCAPI


class CAPI(EncoderTeacher, DecaysTokens):
    """Darcet et al., Cluster and Predict Latent Patches for Improved Masked Image Modeling (TMLR 2025).

    arXiv:2502.08769. The licence of the reference code is Apache 2.0; none of it is used here. There are no golden
    vectors: docs/methods/capi.md says what was verified.
    """

    name: ClassVar[str] = "capi"
    version: ClassVar[str] = "1"
    paper: ClassVar[str] = "https://arxiv.org/abs/2502.08769"
    reference: ClassVar[str] = "https://github.com/facebookresearch/capi@43b3feb73e1525822ae3ece1356272e5c46b2d91"
    predicts: ClassVar[str] = "clusters of the teacher's features at masked patches"
    sees: ClassVar[str] = "visible patches, one block"
    networks: ClassVar[tuple[str, ...]] = ("EMA teacher", "predictor", "clusters")
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    official: ClassVar[OfficialCode | None] = OfficialCAPI()
    Config = CAPIConfig
    config: CAPIConfig

    def __init__(self, config: CAPIConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        self.predictor = config.build_predictor(encoder)
        _init(self)
        self.head = WeightNormLinear(config.predictor_dim, config.clusters, fixed_gain=False)
        self.clusters = config.build_clusters(encoder)
        self.teacher = Teacher(encoder)

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        check_mask_ratios(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> PredictedCells:
        config, ratio = self.config, self.config.ratio_at(self.progress)
        return draw_predicted_cells(
            batch, self.patch_grid, ratio, config.predicted_share, generator, aspect=config.aspect, roll=config.roll
        )

    def masked_cells(self, mask: PredictedCells) -> Tensor:
        return mask.mask

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """[B, N, clusters] from the whole images: to which clusters each patch belongs."""
        return self.clusters.assign(self.clusters.logits(self.teacher_patches(images)))

    @torch.no_grad()
    def teacher_patches(self, images: Tensor) -> Tensor:
        """[B, N, D], after the teacher's final norm."""
        return self.teacher.module.features(images).patches

    def predict(self, images: Tensor, mask: PredictedCells) -> Tensor:
        """Logits [B, T, clusters] of the patches to predict; they do not see each other."""
        context = self.encoder.forward_tokens(self.encoder.embed(images), mask.visible).sequence
        return self.head(F.normalize(self.predictor(context, mask.visible, mask.predicted, self.patch_grid), dim=-1))

    def loss(self, prediction: Tensor, target: Tensor, mask: PredictedCells) -> Tensor:
        """Cross-entropy, mean over the predicted patches. target: [B, N, clusters]."""
        chosen = target[torch.arange(len(target), device=target.device)[:, None], mask.predicted]
        return cross_entropy(at_least_float32(prediction) / self.config.student_temp, chosen)

    def forward(self, images: Tensor, mask: PredictedCells) -> StepOutput:
        """The loss of the prediction and that of the clusters, which share no parameters.

        Logs both, and the entropy of the assignments in nats: near 0 if every patch has one cluster.
        """
        logits = self.clusters.logits(self.teacher_patches(images))
        target = self.clusters.assign(logits)
        clustering = self.clusters.loss(logits, target)
        prediction = self.loss(self.predict(images, mask), target, mask)
        logs = {
            "prediction_loss": prediction.detach(),
            "cluster_loss": clustering.detach(),
            "target_entropy": entropy(target),
        }
        return StepOutput(prediction + clustering, logs)

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student, with the momentum of the progress before the step."""
        self.teacher.follow(self.encoder, self.config.momentum_at(self.progress))

    def optimizer_parts(self) -> dict[str, PartOptions]:
        return self.config.optimizer_parts(self.encoder)

    def extra_weight_decay(self) -> set[str]:
        """The official optimizers decay the weights of norms and the clusters' bias too."""
        return {"*norm*.weight", "clusters.bias"}


def _init(method: CAPI) -> None:
    """Xavier uniform. The official code has q, k and v as separate linear layers, so each is drawn for itself."""
    init_xavier(method)
    for name, part in method.named_modules():
        if name.endswith(".qkv") and isinstance(part, nn.Linear):
            for matrix in part.weight.data.chunk(3):
                nn.init.xavier_uniform_(matrix)
