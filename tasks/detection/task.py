"""Detection: an MMDetection detector fine-tuned from the encoder, scored as COCO does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar

from mimbench.api import (
    Dataset,
    DataSizes,
    Encoder,
    InputConfig,
    InputError,
    MatchedDetections,
    Measured,
    Metric,
    PlannedStep,
    Protocol,
    Schedule,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
    adapt_encoder,
    load_protocols,
    missing_masks_note,
    require_grey_or_rgb,
    scene_split,
    without_weights,
)
from mimbench_tasks.detection.config import DetectionConfig, undecayed_names
from mimbench_tasks.detection.mmcv_extension import HOW_TO_INSTALL

if TYPE_CHECKING:
    from mimbench_tasks.detection.evaluation import Precision


class Detection(Task):
    """Objects found in scenes. Every metric's n is the number of annotated objects that it is taken over.

    A declared metric is left out where the test scenes hold nothing to take it over (no large object, say), and the
    mask metrics where the detector draws no masks; `details["absent"]` says why.
    """

    name: ClassVar[str] = "detection"
    version: ClassVar[str] = "2"
    needs: ClassVar[frozenset[str]] = frozenset({"boxes"})
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"any-size"})
    trains_encoder: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(name, "percent", 0.0, 100.0)
        for name in (
            "AP",
            "AP50",
            "AP75",
            "AP_small",
            "AP_medium",
            "AP_large",
            "mask_AP",
            "mask_AP50",
            "mask_AP75",
        )
    )
    Config: ClassVar[type[TaskConfig]] = DetectionConfig
    protocols: ClassVar[Mapping[str, Protocol]] = load_protocols("mimbench_tasks", "protocols/detection")
    default_protocol: ClassVar[str | None] = "embedded"
    default_dataset: ClassVar[str | None] = "digit-scenes"
    config: DetectionConfig

    @classmethod
    def checkup(cls) -> list[str]:
        """Which of mmcv's compiled ops are here, and how to get the others."""
        with redirect_stdout(StringIO()):
            from mimbench_tasks.detection.torchvision_ops import ops_report

            report = ops_report()
        if report["problem"]:
            return [f"mmcv {report['mmcv']}: its compiled ops do not load: {report['problem']}"]
        if report["compiled"]:
            return [f"mmcv {report['mmcv']}: {len(report['compiled'])} compiled ops"]
        return [
            f"mmcv {report['mmcv']} without compiled ops; from torchvision: {', '.join(report['supplied'])}",
            f"{len(report['missing'])} other mmcv ops, which no detector here needs: {HOW_TO_INSTALL}",
        ]

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        return "mmdet draws the regions of one image after the other, and normalises losses by process"

    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Fine-tune a detector from `encoder` on the train scenes and score it on the test scenes.

        Raises:
            InputError: the dataset has no scenes, or what `check` finds.
        """
        # mmdet takes seconds to import, and prints on standard output, which belongs to the records.
        with redirect_stdout(StringIO()):
            from mimbench_tasks.detection import fine_tuning

        predictions = fine_tuning.train_and_predict(self.config, encoder, dataset, context)
        precisions = fine_tuning.score(predictions)
        metrics, absent = _metrics(precisions)
        return TaskResult(
            metrics=metrics,
            curves={"loss": predictions.report.loss, "precision_by_recall": precisions["boxes"].by_recall},
            artifacts={"predictions": fine_tuning.draw(predictions, context.workdir)},
            details={
                "test_images": len(predictions.test),
                "per_class": {kind: _per_class(precision) for kind, precision in precisions.items()},
                "absent": absent,
            },
            cost=predictions.report,
            detections=_detections(precisions, metrics),
        )

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Raises InputError for all that would stop the fine-tuning at its start, after the pretraining."""
        config = self.config
        require_grey_or_rgb(encoder.in_channels, "the encoder", self.name)
        if config.draws_masks and "masks" not in dataset.provides:
            raise InputError(
                f"{config.detector} needs masks, which dataset {dataset.name!r} does not have; use faster-rcnn"
                f"{missing_masks_note(dataset)}"
            )
        scenes = len(scene_split(dataset, "train"))
        config.train.require_images(scenes, "task.train")
        config.levels(encoder)
        config.padding(encoder)
        Schedule(config.train, steps_per_epoch=-(-scenes // config.train.batch_size))
        like = adapt_encoder(
            without_weights(encoder),
            drop_path=config.drop_path,
            window=config.window,
            global_blocks=config.global_blocks,
            relative_positions=config.positions_side,
            train_positions=config.train_positions,
            grad_checkpointing=config.train.grad_checkpointing,
        )
        undecayed_names(like, config.train.undecayed)

    def export(self, encoder: Encoder, dataset: Dataset | None, images: InputConfig) -> str:
        """An mmdet config file, which mmdet's tools/train.py runs as it is."""
        with redirect_stdout(StringIO()):
            from mimbench_tasks.detection.export import config_file

        return config_file(self.config, encoder, dataset, images)

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep:
        """The step on scenes of the size that training has most often."""
        with redirect_stdout(StringIO()):
            from mimbench_tasks.detection import planned

        return planned.planned_step(self.config, encoder, data, images)

    def chance(self, dataset: Dataset) -> float:
        return 0.0


def _detections(precisions: dict[str, Precision], metrics: Mapping[str, Measured]) -> list[MatchedDetections]:
    """What each average precision over all sizes is computed from. COCO's thresholds are 0.50, 0.55, ..., 0.95."""
    every = {"AP": tuple(range(10)), "AP50": (0,), "AP75": (5,)}
    matched = []
    for kind, prefix in (("boxes", ""), ("masks", "mask_")):
        columns = {f"{prefix}{name}": at for name, at in every.items() if f"{prefix}{name}" in metrics}
        if kind in precisions and columns:
            matched.append(MatchedDetections(**precisions[kind].matched, metrics=columns))
    return matched


def _metrics(precisions: dict[str, Precision]) -> tuple[dict[str, Measured], dict[str, str]]:
    metrics: dict[str, Measured] = {}
    absent = {}
    boxes = precisions["boxes"]
    scores = {"AP": boxes.ap["all"], "AP50": boxes.ap50, "AP75": boxes.ap75}
    scores |= {f"AP_{size}": boxes.ap[size] for size in ("small", "medium", "large")}
    if "masks" in precisions:
        masks = precisions["masks"]
        scores |= {"mask_AP": masks.ap["all"], "mask_AP50": masks.ap50, "mask_AP75": masks.ap75}
    else:
        absent = dict.fromkeys(("mask_AP", "mask_AP50", "mask_AP75"), "the detector draws no masks")
    for name, score in scores.items():
        if score.value is None:
            absent[name] = "no such object in the test scenes"
        else:
            metrics[name] = Measured(score.value, score.objects)
    return metrics, absent


def _per_class(precision: Precision) -> dict[str, Any]:
    return {
        name: {**{metric: score.value for metric, score in scores.items()}, "n": scores["AP"].objects}
        for name, scores in precision.by_class.items()
    }
