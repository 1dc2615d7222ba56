"""The step that `mimbench plan` traces, against the step that trains: memory on the CPU."""

from __future__ import annotations

import pytest

from helpers.measured_memory import measured_peak
from helpers.planned_tasks import encoder_and_step, traced_peak
from mimbench.contract import PlannedStep
from mimbench_tasks.detection.fine_tuning import _open
from mimbench_tasks.detection.model import DetectorTraining, build_detector


@pytest.mark.parametrize(
    ("detector", "rois"),
    [("retinanet", 8), ("mask-rcnn", 8), ("cascade-mask-rcnn", 8), ("mask-rcnn", 32), ("cascade-mask-rcnn", 32)],
)
def test_memory_is_that_of_the_training_step(detector, rois):
    """A detector finds all the objects that it may sample after some steps; here at once, by lower thresholds."""
    settings = [f"task.detector={detector}", f"task.roi_samples={rois}"]
    recipe, encoder, dataset, step = encoder_and_step("detection", settings)
    config = recipe.task("detection").config
    scenes, _ = _open(config, 1, dataset)
    detector = build_detector(config, encoder, recipe.input, classes=len(scenes.classes), seed=0)
    assigners = getattr(getattr(detector, "roi_head", None), "bbox_assigner", [])
    for assigner in assigners if isinstance(assigners, list) else [assigners]:
        assigner.pos_iou_thr = assigner.neg_iou_thr = assigner.min_pos_iou = 0.02
    model = DetectorTraining(detector, config.train.undecayed)
    loader = scenes.loader(8, seed=0, workers=0, pin_memory=False, accumulate=1)
    real = PlannedStep(model, lambda images: next(iter(loader)), config.train)
    assert traced_peak(step, 8) / measured_peak(real, 8) == pytest.approx(1, rel=0.07)
