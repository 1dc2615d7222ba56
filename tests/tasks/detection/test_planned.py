"""The step that `mimbench plan` traces, against the step that trains: memory on the CPU."""

from __future__ import annotations

import pytest

from helpers.measured_memory import measured_peak
from helpers.planned_tasks import encoder_and_step, traced_peak
from mimbench.contract import PlannedStep
from mimbench_tasks.detection.fine_tuning import _open
from mimbench_tasks.detection.model import DetectorTraining, build_detector


@pytest.mark.parametrize("settings", [["task.detector=retinanet"], ["task.detector=cascade-mask-rcnn"]])
def test_memory_is_that_of_the_training_step(settings):
    """8 RoIs of a scene, of which a quarter are objects, as there are in every scene."""
    recipe, encoder, dataset, step = encoder_and_step("detection", [*settings, "task.roi_samples=8"])
    config = recipe.task("detection").config
    scenes, _ = _open(config, 1, dataset)
    detector = build_detector(config, encoder, recipe.input, classes=len(scenes.classes), seed=0)
    model = DetectorTraining(detector, config.train.undecayed)
    loader = scenes.loader(8, seed=0, workers=0, pin_memory=False, accumulate=1)
    real = PlannedStep(model, lambda images: next(iter(loader)), config.train)
    assert traced_peak(step, 8) == pytest.approx(measured_peak(real, 8), rel=0.15)
