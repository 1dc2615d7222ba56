"""Robustness: top-1 accuracy of a linear probe on corrupted test images."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from sklearn.pipeline import Pipeline

from mimbench.contract import (
    ArraySplit,
    Dataset,
    Encoder,
    InputConfig,
    Measured,
    Metric,
    TaskContext,
    TaskResult,
    cosmetic,
)
from mimbench.data import DeviceTransform
from mimbench_tasks._frozen import FrozenTask
from mimbench_tasks._labels import labelled, majority
from mimbench_tasks._regression import RegressionConfig, regress
from mimbench_tasks.robustness.corruptions import FROST
from mimbench_tasks.robustness.images import Corrupted, chosen, picture
from mimbench_tasks.robustness.severities import CORRUPTIONS, SEVERITIES, constants_for


class RobustnessConfig(RegressionConfig):
    """The probe is logistic regression on cached features of clean training images, as linear-probe's default is."""

    test_limit: int = Field(1000, ge=1)
    """Test images, at most; which ones follows from their number alone."""
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    workers: int = cosmetic(0, ge=0, le=1024)
    """Processes that corrupt images; large images take tenths of a second each."""

    @field_validator("severities")
    @classmethod
    def _known(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if not set(severities) <= set(SEVERITIES) or list(severities) != sorted(set(severities)):
            raise ValueError(f"severities must be some of 1 to 5, rising, not {list(severities)}")
        return severities


class Robustness(FrozenTask):
    """Top-1 accuracy under the 15 common corruptions of Hendrycks & Dietterich (arXiv:1903.12261).

    `top1_corrupted` is the mean over corruptions and severities; `top1_clean` is of the same images, and
    `degradation` is what lies between them. Every metric counts n test images, each seen under all corruptions. An
    image's corruptions follow from its place in the test split alone, so that every method and seed sees the same.
    The curve "top1, NAME" holds the accuracy under one corruption by severity; mimbench.report.robustness makes mean
    corruption errors of them. Frost is a procedural stand-in (see corruptions.py).
    """

    name: ClassVar[str] = "robustness"
    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1_corrupted", "percent", 0.0, 100.0),
        Metric("top1_clean", "percent", 0.0, 100.0),
        Metric("degradation", "percent", -100.0, 100.0, higher_is_better=False),
    )
    Config = RobustnessConfig
    config: RobustnessConfig

    def chance(self, dataset: Dataset) -> float:
        return majority(dataset, chosen(len(labelled(dataset, "test")), self.config.test_limit))

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config, train, test = self.config, labelled(dataset, "train"), labelled(dataset, "test")
        severities, places = config.severities, chosen(len(test), config.test_limit)
        context.say(
            f"robustness: {len(places):,} test images under {len(CORRUPTIONS)} corruptions "
            f"in {len(severities)} severities each"
        )
        x, test_x = (features.numpy() for features in self.features(train, test, context))
        fitted = regress(x, train.labels.numpy(), config, context.seed)
        images = Corrupted(test, places.tolist(), context.input, severities)
        path = context.workdir / "corruptions.png"
        path.write_bytes(picture(images, footnote=f"frost: {FROST}"))
        answers = self._answers(fitted.pipeline, encoder, images, context)
        labels = test.labels.numpy()[places]
        clean = 100 * float(np.mean(fitted.pipeline.predict(test_x[places]) == labels))
        top1 = 100 * (answers == labels[:, None]).mean(0).reshape(len(CORRUPTIONS), len(severities))
        corrupted = float(top1.mean())
        curves = {"severity": list(severities), "top1": top1.mean(0).tolist()}
        curves |= {f"top1, {name}": values.tolist() for name, values in zip(CORRUPTIONS, top1, strict=True)}
        details: dict[str, Any] = {
            "constants": constants_for(*images.clean(images.places[0]).shape[1:])[0],
            "frost": FROST,
            **fitted.details(),
            "feature_dim": x.shape[1],
        }
        values = {"top1_corrupted": corrupted, "top1_clean": clean, "degradation": clean - corrupted}
        metrics = {name: Measured(value, len(places)) for name, value in values.items()}
        return TaskResult(metrics, curves, {"corruptions": path}, details)

    @torch.inference_mode()
    def _answers(self, probe: Pipeline, encoder: Encoder, images: Corrupted, context: TaskContext) -> np.ndarray:
        """Classes that the probe names, int [images, corruptions x severities]."""
        input: InputConfig = context.input
        batched = isinstance(images.split, ArraySplit)
        transform = DeviceTransform(input, encoder.in_channels, train=False, batched=batched).to(context.device)
        encoder = encoder.to(context.device).eval()
        answers = []
        for views in images.loader(context.device, self.config.workers):
            seen = transform(views.to(context.device, non_blocking=True))
            features = encoder.features(seen, self.config.layer).pool(self.config.pooling)
            answers.append(probe.predict(features.float().cpu().numpy()))
        return np.stack(answers)
