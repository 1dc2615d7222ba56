"""The stages of a forecast."""

from __future__ import annotations

import pytest

from mimbench.harness.forecast.forecast import Machine, forecast
from mimbench.harness.forecast.gpus import CARDS
from mimbench.harness.forecast.sizes import AbsentData
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve


@pytest.mark.parametrize("measured", [0.0, 0.1])
def test_times_from_peak_rates_are_not_mixed_with_measured_ones(measured):
    """Features are taken without a step that could be measured."""
    card = CARDS["H100"]
    plan = forecast(
        lambda task: resolve("smoke", read("smoke"), "random-init", {}, task),
        ["knn"],
        Machine(card.name, 1, card.memory, card.usable, True, card),
        mfu=0.3,
        absent=AbsentData(),
        measure_seconds=measured,
    )
    (stage,) = plan.stages
    assert (stage.seconds is None) == bool(measured)
    assert stage.flops > 0


def test_a_split_training_takes_less_on_each_device():
    card = CARDS["H100"]
    split, whole = (
        forecast(
            lambda task, changes={"pretrain.parallel": name}: resolve("smoke", read("smoke"), "mae", changes, task),
            [],
            Machine(card.name, 2, card.memory, card.usable, True, card),
            mfu=0.3,
            absent=AbsentData(),
        ).stages[-1]
        for name in ("fsdp", "ddp")
    )
    assert split.memory.total < whole.memory.total
    assert split.disk == whole.disk
