"""Robustness: top-1 accuracy of a linear probe on corrupted test images."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from mimbench.api import (
    Dataset,
    Encoder,
    Measured,
    Metric,
    Regression,
    RegressionConfig,
    RegressionTask,
    TaskContext,
    TaskResult,
    cosmetic,
    labelled_split,
    majority_accuracy,
    require_grey_or_rgb,
)
from mimbench_tasks.robustness.answers import answer_corrupted, score_corrupted
from mimbench_tasks.robustness.corrupted_images import CorruptedImages, as_published, choose_images, draw_corruptions
from mimbench_tasks.robustness.corruptions import DEPARTURES, FROST
from mimbench_tasks.robustness.severities import CORRUPTIONS, IMAGE_SIZES, JPEG_QUALITY, SEVERITIES


class RobustnessConfig(RegressionConfig):
    """The probe is logistic regression on cached features of clean training images, as linear-probe's default is."""

    test_limit: int = Field(1000, ge=1)
    """Test images, at most. They are drawn at random, and are the same for every method and seed."""
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    jpeg_quality: int | None = Field(None, ge=0, le=95)
    """Of the JPEG that each corrupted image is saved as and read from again; 0: none; absent: as the published set of
    these constants was saved, 85 for ImageNet-C and Tiny ImageNet-C, none for CIFAR-10-C."""
    crop: Literal["published", "recipe"] = "published"
    """How images of files are resized and cropped before they are corrupted. published: with ImageNet-C's constants
    as that set was, bilinearly from 256 to 224; recipe: always as [input] says."""
    workers: int = cosmetic(0, ge=0, le=1024)
    """Processes that corrupt images; large images take tenths of a second each."""

    @field_validator("severities")
    @classmethod
    def _known(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if not set(severities) <= set(SEVERITIES) or list(severities) != sorted(set(severities)):
            raise ValueError(f"severities must be some of 1 to 5, rising, not {list(severities)}")
        return severities


class Robustness(RegressionTask):
    """Top-1 accuracy under the 15 common corruptions of Hendrycks & Dietterich (arXiv:1903.12261).

    `top1_corrupted` is the mean over corruptions and severities; `top1_clean` is of the same images, and
    `degradation` is their difference. Every metric counts n test images, each seen under all corruptions. An
    image's corruptions follow from its place in the test split alone, so that every method and seed sees the same.
    The curve "top1, NAME" holds the accuracy under one corruption by severity; `mimbench derive mce` computes mean
    corruption errors from them. `details["departures"]` lists in what the images differ from those of the published
    sets; above all, frost is a procedural stand-in.
    """

    name: ClassVar[str] = "robustness"
    version: ClassVar[str] = "2"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1_corrupted", "percent", 0.0, 100.0),
        Metric("top1_clean", "percent", 0.0, 100.0),
        Metric("degradation", "percent", -100.0, 100.0, higher_is_better=False),
    )
    Config = RobustnessConfig
    config: RobustnessConfig

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        super().check(encoder, dataset)
        require_grey_or_rgb(dataset.channels, f"dataset {dataset.name!r}", self.name)

    def chance(self, dataset: Dataset) -> float:
        return majority_accuracy(dataset, choose_images(len(labelled_split(dataset, "test")), self.config.test_limit))

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        config, train, test = self.config, labelled_split(dataset, "train"), labelled_split(dataset, "test")
        severities, places = config.severities, choose_images(len(test), config.test_limit)
        context.say(
            f"robustness: {len(places):,} test images under {len(CORRUPTIONS)} corruptions "
            f"in {len(severities)} severities each"
        )
        x, test_x = (features.numpy() for features in self.features(train, test, context))
        fitted = self.fit(x, train.labels.numpy(), context)
        images = CorruptedImages(
            test, places.tolist(), context.input, severities, quality=config.jpeg_quality, crop=config.crop
        )
        path = context.workdir / "corruptions.png"
        path.write_bytes(draw_corruptions(images, footnote=f"frost: {FROST}"))
        answers = self._answers(fitted, encoder, images, context)
        labels = test.labels.numpy()[places]
        is_right = fitted.classifier.predict(test_x[places]) == labels
        clean = 100 * float(np.mean(is_right))
        corrupted, curves = score_corrupted(answers, labels, severities)
        details: dict[str, Any] = {
            "constants": images.constants,
            "jpeg_quality": images.quality or None,
            "departures": departures(images),
            "frost": FROST,
            **fitted.details(),
            "feature_dim": x.shape[1],
        }
        values = {"top1_corrupted": corrupted, "top1_clean": clean, "degradation": clean - corrupted}
        metrics = {name: Measured(value, len(places)) for name, value in values.items()}
        by_image = 100 * (answers == labels[:, None]).mean(1)
        by_sample = {"top1_corrupted": by_image, "top1_clean": is_right, "degradation": 100.0 * is_right - by_image}
        return TaskResult(metrics, curves, {"corruptions": path}, details, by_sample=by_sample)

    def _answers(
        self, fitted: Regression, encoder: Encoder, images: CorruptedImages, context: TaskContext
    ) -> np.ndarray:
        """Classes that the probe names, int [images, corruptions x severities]. Ranks share the images."""
        encoder = encoder.to(context.device).eval()

        def answer(views: Tensor) -> np.ndarray:
            features = encoder.features(views, self.config.layer).pool(self.config.pooling)
            return fitted.classifier.predict(features.float().cpu().numpy())

        return answer_corrupted(
            answer,
            images,
            context.input,
            channels=encoder.in_channels,
            device=context.device,
            workers=self.config.workers,
        )


def departures(images: CorruptedImages) -> list[str]:
    """In what the corrupted images differ from those of the published set whose constants they have."""
    departures = list(DEPARTURES)
    if images.side != IMAGE_SIZES[images.constants]:
        departures.append(
            f"all: images of {images.side} px, and {images.constants} is of {IMAGE_SIZES[images.constants]} px"
        )
    if images.quality != JPEG_QUALITY[images.constants]:
        departures.append(f"all: JPEG quality {images.quality} and not {JPEG_QUALITY[images.constants]} (0: no JPEG)")
    from_files = not images.split.is_in_memory
    if from_files and images.constants == "ImageNet-C" and images.input != as_published(images.input):
        departures.append("all: resized and cropped as [input] says, and not bilinearly from 256 to 224")
    return departures
