"""Fine-tuning on clips, scored over several views of each test video, in order and with frames shuffled."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    ImageSplit,
    Metric,
    TaskConfig,
    TaskContext,
    TaskResult,
    labelled_split,
    load_protocols,
    shuffle_frames,
)
from mimbench_tasks.finetune.config import FinetuneConfig
from mimbench_tasks.finetune.scoring import hits
from mimbench_tasks.finetune.task import Finetune
from mimbench_tasks.video.views import ViewsConfig, check_views, mean_probabilities, per_class


class VideoFinetuneConfig(ViewsConfig, FinetuneConfig):
    """Fine-tuning's options, and the views of each test video."""


class VideoFinetune(Finetune):
    """Classification of clips by the whole network, trained as `finetune` does. n is the number of test videos.

    A video's class probabilities are the mean over its views. `top1_shuffled` and `top5_shuffled` are scores of the
    same views with the frames of each clip in random order: a model that uses motion loses there, one that reads single
    frames does not. `class_mean` is the mean of the classes' accuracies.
    """

    name: ClassVar[str] = "video-finetune"
    version: ClassVar[str] = "1"
    takes_images: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = (
        *(Metric(name, "percent", 0.0, 100.0) for name in ("top1", "top1_shuffled", "top5", "top5_shuffled")),
        Metric("class_mean", "percent", 0.0, 100.0),
        Metric("ece", "percent", 0.0, 100.0, higher_is_better=False),
    )
    Config: ClassVar[type[TaskConfig]] = VideoFinetuneConfig
    config: VideoFinetuneConfig
    protocols = load_protocols("mimbench_tasks", "protocols/video_finetune")
    default_protocol = "default"

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        check_views(self.config, dataset)

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        result, classifier, logits = self.train_and_score(encoder, dataset, context)
        test = labelled_split(dataset, "test")
        of_shuffled = self._logits(classifier, encoder.in_channels, shuffle_frames(test), context)
        shuffled = self._scores(of_shuffled, test)
        class_mean, classes = per_class(logits, of_shuffled, test)
        metrics = {
            **result.metrics,
            **{f"{name}_shuffled": shuffled[name] for name in ("top1", "top5")},
            "class_mean": class_mean,
        }
        by_sample = {f"{name}_shuffled": one for name, one in hits(of_shuffled.softmax(1), test.labels).items()}
        return replace(
            result,
            metrics=metrics,
            details={**result.details, "classes": classes},
            by_sample={**result.by_sample, **by_sample},
        )

    def _logits(self, classifier: torch.nn.Module, channels: int, test: ImageSplit, context: TaskContext) -> Tensor:
        """Logarithms of the mean class probabilities over all views, float64 [N, classes]."""
        logits_of = super()._logits

        def probabilities(view: ImageSplit, _: str) -> Tensor:
            return logits_of(classifier, channels, view, context).softmax(1)

        return mean_probabilities(test, self.config, probabilities).log()
