"""The step that `mimbench plan` traces, against the step that trains: memory on the CPU."""

from __future__ import annotations

import pytest

from helpers.measured_memory import measured_peak
from helpers.planned_tasks import encoder_and_step, traced_peak
from mimbench.contract import PlannedStep
from mimbench.toolkit.semantic_splits import semantic_split
from mimbench_tasks.segmentation.data import LabelledImages
from mimbench_tasks.segmentation.model import SegmentorTraining, build_segmentor


@pytest.mark.parametrize("head", ["simple-pyramid", "upernet"])
def test_memory_is_that_of_the_training_step(head):
    recipe, encoder, dataset, step = encoder_and_step("segmentation", [f"task.head={head}"])
    config, train = recipe.task("segmentation").config, semantic_split(dataset, "train")
    segmentor = build_segmentor(config, config.adapt(encoder), len(train.classes), recipe.input, seed=0)
    loader = LabelledImages(train, config, channels=1, seed=0).training_loader(8, workers=0, pin_memory=False)
    real = PlannedStep(SegmentorTraining(segmentor), lambda images: next(iter(loader)), config.train)
    assert traced_peak(step, 8) == pytest.approx(measured_peak(real, 8), rel=0.05)
