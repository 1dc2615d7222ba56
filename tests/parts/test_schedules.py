"""Ramps against what the official codes used at each step, and at their ends."""

import json
from pathlib import Path

import pytest

from mimbench.errors import InputError
from mimbench.parts.schedules import ramp

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "schedules_a.json").read_text())


@pytest.mark.parametrize("name", ["ijepa_pretrain/A", "ijepa_pretrain/B"])
def test_ijepas_momentum_and_weight_decay(name):
    case = GOLDEN[name]
    for step in range(10):
        assert ramp(step / 10, 0.996, 1.0) == pytest.approx(case["ema_momentum_at_step"][step], rel=1e-12)
        decay = ramp((step + 1) / 10, 0.04, 0.4, "cosine")
        assert decay == pytest.approx(case["wd_at_optimizer_step"][step], rel=1e-12)


@pytest.mark.parametrize("name", ["ibot_pretrain/A", "ibot_pretrain/B"])
def test_ibots_momentum_weight_decay_and_temperature(name):
    case = GOLDEN[name]
    epochs, warm = case["epochs"], case["warmup_teacher_temp_epochs"]
    for step in range(10):
        assert ramp(step / 10, 0.996, 1.0, "cosine") == pytest.approx(case["ema_momentum_at_step"][step], rel=1e-12)
        assert ramp(step / 10, 0.04, 0.4, "cosine") == pytest.approx(case["wd_at_optimizer_step"][step], rel=1e-12)
        # There, a temperature holds for an epoch, and the last epoch of the warm-up has the final one.
        epoch = step * epochs // 10
        temperature = ramp(epoch / epochs, 0.04, 0.07, warmup=(warm - 1) / epochs)
        assert temperature == pytest.approx(case["teacher_temp_at_step"][step], rel=1e-12)


def test_a_warmup_ends_where_it_says():
    assert [ramp(p, 1.0, 3.0, warmup=0.5) for p in (0.0, 0.25, 0.5, 1.0)] == [1.0, 2.0, 3.0, 3.0]
    assert [ramp(p, 1.0, 3.0, "cosine", warmup=0.5) for p in (0.0, 0.25, 0.5)] == pytest.approx([1.0, 2.0, 3.0])
    assert [ramp(p, 1.0, 3.0, "step", warmup=0.5) for p in (0.0, 0.49, 0.5, 1.0)] == [1.0, 1.0, 3.0, 3.0]
    assert ramp(0.0, 1.0, 3.0, warmup=0.0) == 3.0
    assert ramp(1.0, 0.3, 0.1) == 0.1


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((1.5, 0, 1), {}, "progress must lie in .0, 1., not 1.5"),
        ((0.5, 0, 1), {"warmup": -0.1}, "warmup must lie in .0, 1., not -0.1"),
        ((0.5, 0, 1, "cubic"), {}, "kind must be .* not 'cubic'"),
    ],
)
def test_impossible_ramps_are_refused(arguments, options, words):
    with pytest.raises(InputError, match=words):
        ramp(*arguments, **options)
