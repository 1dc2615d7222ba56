"""A forecast as text."""

from __future__ import annotations

from mimbench.harness.forecast.describe import describe
from mimbench.harness.forecast.forecast import Forecast, Machine, Stage
from mimbench.harness.forecast.gpus import CARDS, GIB
from mimbench.harness.forecast.memory import StepMemory

CARD = CARDS["A100"]


def forecast_of(**changes):
    stage = Stage(
        "pretrain",
        trained=111_600_000,
        frozen=0,
        flops=58.5e9,
        images=10**9,
        batch=4096,
        precision="fp32",
        options="pretrain",
        memory=StepMemory(512, GIB, GIB, 2 * GIB, 96 * GIB),
        largest=StepMemory(256, GIB, GIB, 2 * GIB, 48 * GIB),
        seconds=7200.0,
    )
    machine = Machine(CARD.name, 8, CARD.memory, CARD.usable, True, CARD)
    return Forecast("mae", "vit", "test", machine, 0.3, False, [Stage(**{**vars(stage), **changes})])


def advice_of(forecast):
    return next((line for line in describe(forecast).splitlines() if line.startswith("pretrain takes")), "")


def test_what_does_not_fit_names_what_to_change():
    advice = advice_of(forecast_of())
    assert advice.startswith("pretrain takes 100 GiB, and 75 GiB of each device can be used: ")
    assert "set pretrain.accumulate=2, so that a micro-batch has 256 images" in advice
    assert "set pretrain.grad_checkpointing=true" in advice
    assert "set pretrain.precision=bf16" in advice
    assert "accumulate" not in advice_of(forecast_of(largest=None))
    assert "smaller encoder" in advice_of(forecast_of(largest=None))
    assert "checkpointing" not in advice_of(forecast_of(has_checkpointing=True))


def test_what_fits_gets_no_advice_and_times_add_up():
    forecast = forecast_of(memory=StepMemory(256, GIB, GIB, 2 * GIB, 48 * GIB))
    assert advice_of(forecast) == ""
    assert "time: 2 h 0 min in all, 16 device hours; loading not included" in describe(forecast)
    forecast.stages.append(Stage("detection", 1, 1))
    assert "time: at least 2 h 0 min in all" in describe(forecast)


def test_large_numbers_have_all_their_digits():
    memory = StepMemory(256, GIB, GIB, 2 * GIB, 1020 * 2**20)
    text = describe(forecast_of(seconds=3.6e6, trained=999_999, flops=12_345e9, memory=memory))
    assert "8,000 device hours" in text
    assert " 1,000 k " in text
    assert " 12,345 " in text
    assert "activations 1,020 MiB" in text
    assert "e+" not in text
    assert ", under 0.01 device hours" in describe(forecast_of(seconds=0.1))
