"""The probed classifier on other test sets."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Dataset,
    Encoder,
    Metric,
    Regression,
    RegressionTask,
    TaskContext,
    TaskResult,
    class_probabilities,
    labelled_split,
)
from mimbench_tasks.ood.config import OodConfig, SetOptions
from mimbench_tasks.ood.evaluation import METRICS, chance, check_sets, evaluate
from mimbench_tasks.ood.sets import has_sets, identify_sets


class Probe(nn.Module):
    """Images float [B, C, S, S], normalised -> class probabilities [B, classes], by a regression on frozen features."""

    def __init__(self, encoder: Encoder, regression: Regression, layer: int, pooling: str, classes: int) -> None:
        super().__init__()
        self.encoder, self.regression = encoder, regression
        self.layer, self.pooling, self.classes = layer, pooling, classes

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder.features(images, self.layer).pool(self.pooling).float().cpu().numpy()
        return torch.from_numpy(class_probabilities(self.regression.classifier, features, self.classes))


class Ood(RegressionTask):
    """Top-1 accuracy of a linear probe on other test sets than that of its training images.

    ImageNet-A (arXiv:1907.07174) and -R (arXiv:2006.16241) have 200 classes each, and only these may be answered.
    -Sketch (arXiv:1905.13549) and -V2 (arXiv:1902.10811) have all 1,000. ReaL (arXiv:2006.07159) has several labels
    per image; images without one are left out. On ImageNet-C (arXiv:1903.12261), whose images are cropped as they lie,
    mCE is relative to AlexNet's published errors. `finetune-ood` measures the fine-tuned model.
    """

    name: ClassVar[str] = "ood"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    Config = OodConfig
    config: OodConfig

    def protocol(self) -> dict[str, Any]:
        return without_corruptions(super().protocol(), self.config)

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        return {**super().protocol_on(device), **protocol_of_sets(self.config)}

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        check_sets(self.config, dataset)

    def chance(self, dataset: Dataset) -> float:
        return chance(self.config, dataset)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config, train, test = self.config, labelled_split(dataset, "train"), labelled_split(dataset, "test")
        context.say(f"ood: fitting a probe to {len(train):,} training images")
        x, test_x = (features.numpy() for features in self.features(train, test, context))
        fitted = self.fit(x, train.labels.numpy(), context)
        clean = class_probabilities(fitted.classifier, test_x, len(train.classes))
        probe = Probe(encoder, fitted, config.layer, config.pooling, len(train.classes))
        scores = evaluate(config, probe, clean, dataset, context.input, context, channels=encoder.in_channels)
        details = {**scores.details, **fitted.details(), "feature_dim": x.shape[1]}
        return TaskResult(scores.metrics, scores.curves, scores.artifacts, details, by_sample=scores.by_sample)


def without_corruptions(protocol: dict[str, Any], config: SetOptions) -> dict[str, Any]:
    """The protocol; if an option names a set, without the options of corruptions, which are not used then."""
    unused = ("test_limit", "severities") if has_sets(config) else ()
    return {name: value for name, value in protocol.items() if name not in unused}


def protocol_of_sets(config: SetOptions) -> dict[str, Any]:
    """What the protocol says of the sets. Raises InputError if one is not there."""
    return {"sets": identify_sets(config)} if has_sets(config) else {}
