"""One detection run: data, detector, training, predictions, scores, picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from mmengine.dist import get_world_size

from mimbench.contract import Dataset, Encoder, FitReport, InputError, SceneSplit, SplitName, TaskContext
from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.detectors import HeadOptions
from mimbench_tasks.detection.evaluation import Kind, Precision, average_precision, coco_results
from mimbench_tasks.detection.model import DetectorTraining, build_detector
from mimbench_tasks.detection.picture import draw_predictions
from mimbench_tasks.detection.scenes import Scenes, resize, training_transforms


@dataclass(frozen=True)
class Outcome:
    """What a trained detector found in the test scenes."""

    test: Scenes
    results: list[dict[str, Any]]
    """COCO's records of all detections."""
    shown: list[DetDataSample]
    """The first scenes' predictions, for the picture."""
    draws_masks: bool
    report: FitReport

    @property
    def names(self) -> dict[int, str]:
        """Class names by COCO category id, in the order of labels."""
        return dict(zip(self.test.category_ids, self.test.classes, strict=True))


def train_and_predict(config: DetectionConfig, encoder: Encoder, dataset: Dataset, context: TaskContext) -> Outcome:
    """Fine-tune a detector around `encoder` and predict on every test scene.

    Raises InputError as `Detection.run` says.
    """
    train, test = _open(config, encoder.in_channels, dataset)
    if config.window and len(encoder.pyramid_strides) == 1:
        encoder.use_windows(config.window, config.global_blocks)
    if config.train.grad_checkpointing:
        encoder.set_grad_checkpointing()
    options = head_options(config, encoder, len(train.classes))
    model = DetectorTraining(build_detector(config.detector, options, encoder, context.input, seed=context.seed))
    share = max(1, config.train.batch_size // config.train.accumulate // get_world_size())
    workers, pinned = config.train.workers, context.device.type == "cuda"
    report = context.fit(
        model,
        train.loader(share, seed=context.seed, workers=workers, pin_memory=pinned),
        config.train,
        label=f"detection ({config.detector})",
        images_per_epoch=len(train),
    )
    model.to(context.device).eval()
    results: list[dict[str, Any]] = []
    shown: list[DetDataSample] = []
    for batch in test.loader(share, seed=None, workers=workers, pin_memory=pinned):
        samples = model.predict(batch)
        results += coco_results(samples, test.category_ids)
        shown = [*shown, *samples][: config.pictures]
    return Outcome(test, results, shown, config.draws_masks, report)


def head_options(config: DetectionConfig, encoder: Encoder, classes: int) -> HeadOptions:
    """What the heads need to know."""
    return HeadOptions(
        classes=classes,
        channels=config.channels,
        strides=config.pyramid(encoder.pyramid_strides),
        convs=config.convs,
        anchor_scale=config.anchor_scale,
        proposals=config.proposals,
        roi_samples=config.roi_samples,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_detections=config.max_detections,
    )


def score(outcome: Outcome) -> dict[str, Precision]:
    """Average precision of "boxes", and of "masks" where the detector draws them."""
    kinds: dict[str, Kind] = {"boxes": "bbox", "masks": "segm"} if outcome.draws_masks else {"boxes": "bbox"}
    return {
        name: average_precision(outcome.test.annotations, outcome.results, outcome.names, kind)
        for name, kind in kinds.items()
    }


def picture(outcome: Outcome, workdir: Path) -> Path:
    """The first test scenes, truth above and detections below."""
    return draw_predictions(
        workdir / "predictions.png",
        outcome.shown,
        outcome.test.annotations,
        outcome.test.images,
        outcome.names,
    )


def _open(config: DetectionConfig, channels: int, dataset: Dataset) -> tuple[Scenes, Scenes]:
    """The training and the test scenes."""
    masks = config.draws_masks
    if masks and "masks" not in dataset.provides:
        raise InputError(f"mask-rcnn needs masks, which dataset {dataset.name!r} does not provide; use faster-rcnn")
    training, testing = _split(dataset, "train"), _split(dataset, "test")
    train = Scenes(training, channels=channels, training=True, masks=masks, augment=training_transforms(config))
    test = Scenes(testing, channels=channels, training=False, masks=masks, augment=resize(config))
    if train.classes != test.classes:
        raise InputError(f"{training.annotations} and {testing.annotations} list their categories differently")
    return train, test


def _split(dataset: Dataset, name: SplitName) -> SceneSplit:
    split = dataset.split(name)
    if not isinstance(split, SceneSplit):
        raise InputError(f"dataset {dataset.name!r} has no scenes with boxes; detection needs some, e.g. digit-scenes")
    return split
