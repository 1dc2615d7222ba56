"""The fine-tuned classifier on other test sets."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from mimbench.api import Dataset, Encoder, Metric, TaskConfig, TaskContext, TaskResult
from mimbench_tasks.finetune.task import Finetune
from mimbench_tasks.ood.config import FinetuneOodConfig
from mimbench_tasks.ood.evaluation import METRICS, chance, check_sets, evaluate
from mimbench_tasks.ood.task import protocol_of_sets, without_corruptions


class FinetuneOod(Finetune):
    """Fine-tuning as `finetune` does, and then the accuracy of the model on other test sets, as `ood` does.

    With no set named, it is the robustness of the fine-tuned model: the test images are corrupted as `robustness` does.
    """

    name: ClassVar[str] = "finetune-ood"
    version: ClassVar[str] = "1"
    takes_clips: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    Config: ClassVar[type[TaskConfig]] = FinetuneOodConfig
    config: FinetuneOodConfig

    def protocol(self) -> dict[str, Any]:
        return without_corruptions(super().protocol(), self.config)

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return protocol_of_sets(self.config)

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        check_sets(self.config, dataset)

    def chance(self, dataset: Dataset) -> float:
        return chance(self.config, dataset)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        trained, classifier, logits = self.train_and_score(encoder, dataset, context)
        images = self.config.input(context.input)
        scores = evaluate(
            self.config, classifier, logits.numpy(), dataset, images, context, channels=encoder.in_channels
        )
        return TaskResult(
            scores.metrics,
            {**trained.curves, **scores.curves},
            scores.artifacts,
            {**trained.details, **scores.details, "clean": {n: one.value for n, one in trained.metrics.items()}},
            trained.cost,
            trained.scores,
            scores.by_sample,
        )
