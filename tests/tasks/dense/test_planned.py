"""The step that `mimbench plan` traces, against the step that trains: memory on the CPU."""

from __future__ import annotations

import pytest

from helpers.measured_memory import measured_peak
from helpers.planned_tasks import encoder_and_step, traced_peak
from helpers.tiny_dense import context
from mimbench.contract import PlannedStep

AUGMENTED = "task.augmentation.flip=0.5"
DPT = ["task.head=dpt", "task.layers=[0,1,2,-1]", "task.channels=16", "task.output=regression"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dense-linear", []),
        ("dense-linear", [AUGMENTED, "task.lr_factors=[0.1,1]", "task.class_token=true"]),
        ("depth", [AUGMENTED]),
        ("depth", [AUGMENTED, *DPT]),
    ],
)
def test_memory_is_that_of_the_training_step(name, settings, tmp_path):
    recipe, encoder, dataset, step = encoder_and_step(name, ["encoder.class_token=true", "encoder.depth=4", *settings])

    class Begun(Exception):
        """Ends the task where its training would begin."""

    def fit(model, loader, config, **_):
        raise Begun(model, next(iter(loader)), config)

    with pytest.raises(Begun) as caught:
        recipe.task(name).run(encoder, dataset, context(tmp_path, fit=fit))
    model, batch, config = caught.value.args
    images, is_stored = len(batch[1]), not settings
    of_encoder = 0 if is_stored else sum(value.nbytes for value in encoder.state_dict().values())
    measured = measured_peak(PlannedStep(model, lambda _: batch, config), images) + of_encoder
    assert traced_peak(step, images) == pytest.approx(measured, rel=0.05)
