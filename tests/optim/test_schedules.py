"""Schedules against the rates that the official scripts use at each optimizer step."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from mimbench.contract import ScheduleConfig, TrainConfig
from mimbench.errors import InputError
from mimbench.optim import Schedule

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedule.json").read_text())


def schedule(steps_per_epoch=1, *, batch_size=64, lr_divisor=None, accumulate=1, epochs=10, base_lr=1.0, **rule):
    train = TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        base_lr=base_lr,
        lr_divisor=lr_divisor,
        accumulate=accumulate,
        schedule=ScheduleConfig(**rule),
    )
    return Schedule(train, steps_per_epoch)


def official(name, factor=1.0, **changes):
    """The schedule of a golden recipe; `factor` divides the rates that the batch scales."""
    case, convention = GOLDEN[name], name.split("_")[0]
    steps_per_epoch = case["n_iter_per_epoch"]
    warmup_steps = case.get("warmup_steps", -1)
    scaled = factor if convention == "simmim" else 1.0
    return schedule(
        steps_per_epoch,
        epochs=case["epochs"],
        base_lr=case["base_lr"] / factor,
        convention=convention,
        kind=case["kind"],
        warmup_epochs=warmup_steps / steps_per_epoch if warmup_steps > 0 else case["warmup_epochs"],
        warmup_lr=case["warmup_lr"] / scaled,
        min_lr=case["min_lr"] / scaled,
        milestones=tuple(case.get("multisteps_epochs", ())),
        gamma=case.get("gamma", 0.1),
        **changes,
    )


def rates(plan, lr_scale=1.0):
    return [plan.lr(step, lr_scale) for step in range(plan.steps)]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("factor", "changes"), [(1.0, {}), (4.0, {"batch_size": 2048, "lr_divisor": 512})])
def test_every_step_has_the_official_rate(name, factor, changes):
    plan = official(name, factor, **changes)
    for group, expected in GOLDEN[name]["lr_at_optimizer_step"].items():
        scale = 1.0 if group == "all" else float(group.removeprefix("scale_"))
        assert rates(plan, scale) == pytest.approx(expected, rel=1e-12, abs=0)


def test_simmim_counts_micro_batches_when_it_accumulates():
    rule = {"convention": "simmim", "warmup_epochs": 1, "epochs": 2}
    micro = rates(schedule(8, **rule))
    steps = rates(schedule(4, accumulate=2, **rule))
    assert steps == pytest.approx([micro[0], micro[2], micro[4], micro[6], *micro[8::2]])


def test_beit_ignores_its_warmup_lr():
    rule = {"convention": "beit", "warmup_epochs": 3}
    assert rates(schedule(2, **rule, warmup_lr=0.5)) == rates(schedule(2, **rule))


def test_plain_cosine_peaks_after_the_warmup_and_falls_towards_min_lr():
    plan = schedule(4, epochs=5, warmup_epochs=1, warmup_lr=0.1, min_lr=0.2)
    values = rates(plan)
    assert values[:5] == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0])
    assert all(later < earlier for earlier, later in pairwise(values[4:]))
    assert values[12] == pytest.approx(0.6)
    assert 0.2 < values[-1] < 0.21
    assert rates(plan, 0.5) == pytest.approx([value / 2 for value in values])


def test_plain_scales_only_the_peak_by_the_batch():
    values = rates(schedule(4, batch_size=128, lr_divisor=64, warmup_epochs=1, warmup_lr=0.1))
    assert values[0] == pytest.approx(0.1)
    assert values[4] == pytest.approx(2.0)


def test_plain_multistep_and_constant():
    assert rates(schedule(1, kind="multistep", epochs=5, milestones=(2, 4), gamma=0.5)) == [1, 1, 0.5, 0.5, 0.25]
    assert rates(schedule(1, kind="constant", epochs=4, warmup_epochs=2)) == [0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"convention": "mae", "kind": "constant"}, "'mae' has no constant schedule"),
        ({"convention": "beit", "kind": "multistep", "milestones": (2,)}, "'beit' has no multistep schedule"),
        ({"convention": "mae", "warmup_epochs": 1, "warmup_lr": 0.1}, "always starts at 0"),
        ({"kind": "multistep"}, "needs schedule.milestones"),
        ({"milestones": (2,)}, "does not use schedule.milestones"),
        ({"kind": "multistep", "milestones": (4, 2)}, "do not rise"),
        ({"kind": "multistep", "milestones": (700,)}, "epoch 700 is outside the 10 epochs"),
        ({"kind": "multistep", "milestones": (2,), "warmup_epochs": 3}, "epoch 2 is outside"),
        ({"min_lr": 2.0}, "min_lr 2 is above the peak rate"),
        ({"warmup_epochs": 1, "warmup_lr": 2.0}, "warmup_lr 2 is above the peak rate"),
        ({"steps_per_epoch": 0}, "batch_size 64 exceeds the training images"),
    ],
)
def test_what_could_have_no_effect_is_refused(rule, words):
    with pytest.raises(InputError, match=words) as error:
        schedule(**rule)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", [-1, 10])
def test_no_rate_is_shown_outside_of_training(step):
    with pytest.raises(ValueError, match="outside the 10 steps"):
        schedule().lr(step)


def test_in_the_convention_of_spark_the_last_step_has_the_final_values():
    config = TrainConfig(
        epochs=2,
        batch_size=512,
        base_lr=0.1,
        lr_divisor=256,
        weight_decay=0.04,
        final_weight_decay=0.2,
        schedule=ScheduleConfig(convention="spark", warmup_epochs=0.5, warmup_lr=0.01, min_lr=0.001),
    )
    plan = Schedule(config, 4)
    assert [plan.lr(step, 0.5) for step in (0, 2, 7)] == pytest.approx([0.01, 0.1, 0.001])
    assert [plan.weight_decay(step) for step in (0, 7)] == pytest.approx([0.04, 0.2])
    single = Schedule(config.model_copy(update={"epochs": 1}), 1)  # one step: the start of each
    assert single.weight_decay(0) == pytest.approx(0.04)
