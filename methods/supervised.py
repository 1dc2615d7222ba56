"""The control with labels: the same encoder and budget, trained to classify."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from mimbench.api import Batch, Config, Encoder, Method, NotSupported, Stage, StepOutput


class SupervisedConfig(Config):
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class Supervised(Method):
    """Cross-entropy on a linear layer over mean-pooled features: what the pixels' methods are up against."""

    name: ClassVar[str] = "supervised"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = True
    predicts: ClassVar[str] = "class"
    sees: ClassVar[str] = "all patches"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    supervision: ClassVar[tuple[str, ...]] = ("labels",)
    Config = SupervisedConfig
    config: SupervisedConfig

    def __init__(self, config: SupervisedConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.head: nn.Module = nn.Identity()  # `prepare` or a checkpoint sets the number of classes

    def prepare(self, stage: Stage) -> None:
        head = self._classify(len(stage.classes))
        nn.init.trunc_normal_(head.weight, std=0.02, generator=torch.Generator().manual_seed(stage.seed))
        nn.init.zeros_(head.bias)

    def set_image_size(self, size: int) -> None:
        self.image_size = size

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        """Cross-entropy of whole images; logs top-1 accuracy in percent."""
        if batch.labels is None:
            raise NotSupported("supervised needs labels with its images")
        scores = self.head(self.encoder.features(batch.images).pooled)
        loss = F.cross_entropy(scores.float(), batch.labels, label_smoothing=self.config.label_smoothing)
        top1 = 100 * (scores.detach().argmax(1) == batch.labels).float().mean()
        return StepOutput(loss, {"top1": top1})

    def _classify(self, classes: int) -> nn.Linear:
        self.head = head = nn.Linear(self.encoder.out_dim, classes)
        return head

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state.get(f"{prefix}head.bias")
        if stored is not None:
            self._classify(len(stored))
        super()._load_from_state_dict(state, prefix, *rest)
