"""A detector fine-tuned from the encoder: data, training, predictions, scores, picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample

from mimbench.api import (
    Dataset,
    Encoder,
    FitReport,
    InputError,
    TaskContext,
    get_world_size,
    map_over_ranks,
    scene_split,
)
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.evaluation import Kind, Precision, average_precision, coco_results
from mimbench_tasks.detection.model import DetectorTraining, build_detector
from mimbench_tasks.detection.pipeline import test_pipeline, training_pipeline
from mimbench_tasks.detection.prediction_figure import draw_predictions
from mimbench_tasks.detection.scenes import Scenes, different_labels

TEST_BATCH = 8
"""Largest number of test scenes per batch. Predicted masks have full size and need more memory than the scenes."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a trained detector on the test scenes."""

    test: Scenes
    results: list[dict[str, Any]]
    """All detections, as records in COCO's result format."""
    shown: list[DetDataSample]
    """Predictions on the first scenes, for the picture."""
    draws_masks: bool
    report: FitReport

    @property
    def names(self) -> dict[int, str]:
        """Class names by COCO category id, in the order of labels."""
        return dict(zip(self.test.category_ids, self.test.classes, strict=True))


def train_and_predict(config: DetectionConfig, encoder: Encoder, dataset: Dataset, context: TaskContext) -> Predictions:
    """Fine-tune a detector around `encoder` and predict on every test scene.

    Raises:
        InputError: the dataset has no scenes, or its splits differ in their classes.
    """
    train, test = _open(config, encoder.in_channels, dataset)
    detector = build_detector(config, encoder, context.input, classes=len(train.classes), seed=context.seed)
    model = DetectorTraining(detector, config.train.undecayed)
    share = max(1, config.train.micro_batch(get_world_size()))
    workers, pinned = config.train.workers, context.device.type == "cuda"
    report = context.fit(
        model,
        train.loader(share, seed=context.seed, workers=workers, pin_memory=pinned, accumulate=config.train.accumulate),
        config.train,
        label=f"detection ({config.detector})",
        images_per_epoch=len(train),
    )
    model.to(context.device).eval()
    shown: list[DetDataSample] = []

    def predict(batch: Any) -> tuple[list[dict[str, Any]], list[DetDataSample]]:
        """COCO's records of a batch, and the predictions themselves until there are enough for the picture."""
        samples = model.predict(batch)
        first = [sample.cpu() for sample in samples][: max(0, config.pictures - len(shown))]
        shown.extend(first)
        return coco_results(samples, test.category_ids), first

    test_batch = min(config.train.micro_batch(1), TEST_BATCH)  # the same on any number of processes
    batches = map_over_ranks(predict, test.loader(test_batch, seed=None, workers=workers, pin_memory=pinned))
    results = [record for records, _ in batches for record in records]
    shown = [sample for _, samples in batches for sample in samples][: config.pictures]
    return Predictions(test, results, shown, config.draws_masks, report)


def score(predictions: Predictions) -> dict[str, Precision]:
    """Average precision of "boxes", and of "masks" if the detector predicts masks."""
    kinds: dict[str, Kind] = {"boxes": "bbox", "masks": "segm"} if predictions.draws_masks else {"boxes": "bbox"}
    return {
        name: average_precision(predictions.test.annotations, predictions.results, predictions.names, kind)
        for name, kind in kinds.items()
    }


def draw(predictions: Predictions, workdir: Path) -> Path:
    """Draw the first test scenes, ground truth above and predictions below."""
    return draw_predictions(
        workdir / "predictions.png",
        predictions.shown,
        predictions.test.annotations,
        predictions.test.images,
        predictions.names,
    )


def _open(config: DetectionConfig, channels: int, dataset: Dataset) -> tuple[Scenes, Scenes]:
    """The training and the test scenes."""
    training, testing = scene_split(dataset, "train"), scene_split(dataset, "test")
    train = Scenes(
        training,
        training_pipeline(config, channels),
        training=True,
        keep_empty=config.keep_empty,
        least_side=config.least_side,
    )
    test = Scenes(testing, test_pipeline(config, channels), training=False)
    if train.classes != test.classes:
        raise InputError(different_labels(training, testing))
    return train, test
