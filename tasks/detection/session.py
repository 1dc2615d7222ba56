"""One detection run: data, detector, training, predictions, scores, picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mimbench_tasks.detection.config import DetectionConfig
from mimbench_tasks.detection.detectors import HeadOptions
from mimbench_tasks.detection.evaluation import Precision, average_precision, coco_results
from mimbench_tasks.detection.model import DetectorTraining, build_detector
from mimbench_tasks.detection.picture import draw_predictions
from mimbench_tasks.detection.scenes import Scenes, resize, training_transforms
from mmdet.structures import DetDataSample
from mmengine.dist import get_world_size

from mimbench.contract import Dataset, Encoder, FitReport, InputError, SceneSplit, SplitName, TaskContext


@dataclass(frozen=True)
class Outcome:
    """A trained detector's predictions on the test scenes, in their order."""

    test: Scenes
    images: Path
    predictions: list[DetDataSample]
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
    masks = config.detector == "mask-rcnn"
    if masks and "masks" not in dataset.provides:
        raise InputError(f"mask-rcnn needs masks, which dataset {dataset.name!r} does not provide; use faster-rcnn")
    channels = encoder.in_channels
    train_split, test_split = _split(dataset, "train"), _split(dataset, "test")
    train = Scenes(train_split, channels=channels, training=True, masks=masks, augment=training_transforms(config))
    test = Scenes(test_split, channels=channels, training=False, masks=masks, augment=resize(config))
    if train.classes != test.classes:
        raise InputError(f"{train_split.annotations} and {test_split.annotations} list their categories differently")
    if config.window:
        encoder.use_windows(config.window, config.global_blocks)
    if config.train.grad_checkpointing:
        encoder.set_grad_checkpointing()
    options = head_options(config, encoder, len(train.classes))
    model = DetectorTraining(build_detector(config.detector, options, encoder, context.input, seed=context.seed))
    share = config.train.batch_size // config.train.accumulate // get_world_size()
    pinned = context.device.type == "cuda"
    workers = config.train.workers
    report = context.fit(
        model,
        train.loader(share, seed=context.seed, workers=workers, pin_memory=pinned),
        config.train,
        label=f"detection ({config.detector})",
        images_per_epoch=len(train),
    )
    model.to(context.device).eval()
    loader = test.loader(share, seed=None, workers=workers, pin_memory=pinned)
    predictions = [sample.cpu() for batch in loader for sample in model.predict(batch)]
    return Outcome(test, test_split.images, predictions, masks, report)


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
    results = coco_results(outcome.predictions, outcome.test.category_ids)
    annotations = outcome.test.annotations
    precisions = {"boxes": average_precision(annotations, results, outcome.names, "bbox")}
    if outcome.draws_masks:
        precisions["masks"] = average_precision(annotations, results, outcome.names, "segm")
    return precisions


def picture(outcome: Outcome, workdir: Path, scenes: int) -> Path:
    """The first test scenes, truth above and detections below."""
    return draw_predictions(
        workdir / "predictions.png",
        outcome.predictions[:scenes],
        outcome.test.annotations,
        outcome.images,
        outcome.names,
    )


def _split(dataset: Dataset, name: SplitName) -> SceneSplit:
    split = dataset.split(name)
    if not isinstance(split, SceneSplit):
        raise InputError(f"dataset {dataset.name!r} has no scenes with boxes; detection needs some, e.g. digit-scenes")
    return split
