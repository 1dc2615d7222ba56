"""Segmentation: one class per pixel, by an mmsegmentation head fine-tuned with the encoder."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from math import lcm
from typing import ClassVar

from mimbench.api import (
    BACKGROUND,
    Dataset,
    DataSizes,
    Encoder,
    InputConfig,
    InputError,
    Measured,
    Metric,
    PlannedStep,
    Schedule,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    constant_score,
    encoder_depends_on_processes,
    load_protocols,
    per_class,
    require_grey_or_rgb,
    train_and_test,
    without_weights,
)
from mimbench_tasks.segmentation.config import SegmentationConfig, pyramid_strides


class Segmentation(Task):
    """Semantic segmentation, scored as mmsegmentation does. Every metric's n is the number of test images.

    mIoU and mAcc are means over classes. A class that no test image holds is left out of both; if it is predicted all
    the same, it counts in mIoU, with 0. Pixels of no known class (255) count nowhere. `details` has every class's
    IoU, accuracy and pixels.
    """

    name: ClassVar[str] = "segmentation"
    version: ClassVar[str] = "2"
    needs: ClassVar[frozenset[str]] = frozenset({"masks"})
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"any-size"})
    trains_encoder: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name, "percent", 0.0, 100.0) for name in ("mIoU", "mAcc", "aAcc")
    )
    Config: ClassVar[type[TaskConfig]] = SegmentationConfig
    protocols = load_protocols("mimbench_tasks", "protocols/segmentation")
    default_protocol: ClassVar[str | None] = "default"
    default_dataset: ClassVar[str | None] = "digit-scenes"
    config: SegmentationConfig

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Fine-tune a segmentor from `encoder` on the training images and score it on the test images.

        Raises:
            InputError: as `check`, or an image cannot be read.
        """
        # mmseg takes seconds to import, and prints on standard output, which belongs to the records.
        with redirect_stdout(StringIO()):
            from mimbench_tasks.segmentation import fine_tuning

        train, test = train_and_test(dataset)
        predictions = fine_tuning.train_and_predict(self.config, encoder, train, test, context)
        scores = predictions.confusion.scores()
        values = {"mIoU": scores.mean_iou, "mAcc": scores.mean_accuracy, "aAcc": scores.accuracy}
        return TaskResult(
            metrics={name: Measured(value, len(test)) for name, value in values.items()},
            curves={"loss": predictions.report.loss},
            artifacts={"predictions": fine_tuning.draw(predictions, train.classes, context.workdir)},
            details={"pixels": sum(scores.pixels), "per_class": per_class(scores, train.classes)},
            cost=predictions.report,
            pixels=predictions.confusion.pixels(),
        )

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        config, (train, _) = self.config, train_and_test(dataset)
        reason = encoder_depends_on_processes(encoder)
        if reason or config.crop_size is not None:
            return reason
        has_one_size = len({train.shape(index) for index in range(len(train))}) == 1
        if config.scale_jitter != (1.0, 1.0) or not has_one_size:
            return "each process pads its images to the largest of them; set task.crop_size to pad all equally"
        return ""

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Raises InputError for strides, layers, windows, sizes or a budget that do not suit encoder and dataset."""
        config = self.config
        require_grey_or_rgb(encoder.in_channels, "the encoder", self.name)
        train, _ = train_and_test(dataset)
        padded = lcm(encoder.patch_size, *pyramid_strides(config, encoder))
        if config.crop_size is not None and config.crop_size % padded:
            raise InputError(
                f"task.crop_size {config.crop_size} px is not a multiple of {padded} px, "
                "which patch and strides of the pyramid divide"
            )
        config.adapt(without_weights(encoder))
        if config.background_weight != 1 and train.classes[0] != BACKGROUND:
            raise InputError(f"task.background_weight: dataset {dataset.name!r} has no background class; leave it out")
        budget = config.train
        budget.require_images(len(train), "task.train")
        if config.head == "upernet" and budget.micro_batch(1) < 2:
            raise InputError(
                "upernet normalises what it pools to one value over the batch: task.train.batch_size / accumulate "
                "must be 2 or more"
            )
        Schedule(budget, steps_per_epoch=len(train) // budget.batch_size)

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        """The step on crops, or on whole images if there are none."""
        with redirect_stdout(StringIO()):
            from mimbench_tasks.segmentation import planned

        return planned.planned_step(self.config, encoder, data, images)

    def chance(self, dataset: Dataset) -> float:
        """Answering the most frequent class of the training images everywhere."""
        train, test = train_and_test(dataset)
        return constant_score(train.counts(), test.counts())
