"""Schedules against the rates that the official scripts use at each optimizer step."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize("convention", ["plain", "simmim", "beit", "ijepa", "spark"])
def test_a_part_of_a_cosine_ends_above_min_lr(convention):
    """80 percent of the half wave: each rate is that of the whole wave at 80 percent of the way."""
    whole, part = (schedule(100, convention=convention, min_lr=0.1, cosine_share=share) for share in (1.0, 0.8))
    for step in (0, 250, 500, 995):
        assert part.lr(step) == pytest.approx(whole.lr(round(0.8 * step)), abs=1e-3)
    assert part.lr(999) == pytest.approx(0.1 + 0.45 * (1 + math.cos(0.8 * math.pi)), abs=2e-3)
    assert "cosine_share" in ScheduleConfig().left_out()


def test_a_part_of_a_cosine_needs_a_cosine():
    with pytest.raises(ValidationError, match=r"cosine_share 0\.8 is for a cosine, and kind is constant"):
        ScheduleConfig(kind="constant", cosine_share=0.8)


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


@pytest.mark.parametrize(
    "rule",
    [
        {"warmup_epochs": 2, "warmup_lr": 0.1, "min_lr": 0.05},
        {"convention": "simmim", "warmup_epochs": 2, "warmup_lr": 0.1, "min_lr": 0.05},
        {"convention": "mae", "warmup_epochs": 1},
        {"convention": "beit", "warmup_epochs": 3},
        {"kind": "multistep", "warmup_epochs": 1, "milestones": (3, 4)},
        {"kind": "multistep", "convention": "simmim", "warmup_epochs": 1, "milestones": (3, 4)},
        {"kind": "linear"},
    ],
)
@pytest.mark.parametrize("per_epoch", [3, 7])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_budget_in_steps_has_the_rates_of_the_same_budget_in_epochs(rule, per_epoch, accumulate):
    options = {"batch_size": 64, "base_lr": 1.0, "accumulate": accumulate, "final_weight_decay": 0.2}
    in_epochs = TrainConfig(epochs=5, schedule=ScheduleConfig(**rule), **options)
    in_steps = dict(rule)
    if "warmup_epochs" in rule:
        in_steps["warmup_steps"] = in_steps.pop("warmup_epochs") * per_epoch
    if "milestones" in rule:
        in_steps["milestone_steps"] = tuple(epoch * per_epoch for epoch in in_steps.pop("milestones"))
    expected = Schedule(in_epochs, per_epoch)
    for schedule_options in (rule, in_steps):
        config = TrainConfig(steps=5 * per_epoch, schedule=ScheduleConfig(**schedule_options), **options)
        plan = Schedule(config, per_epoch)
        assert rates(plan) == rates(expected)
        assert [plan.weight_decay(i) for i in range(plan.steps)] == [
            expected.weight_decay(i) for i in range(expected.steps)
        ]


def test_milestones_in_steps_fall_at_their_step_whatever_the_epoch():
    for per_epoch, steps in ((1251, 90_000), (7, 90_000), (100_000, 90_000)):
        rule = ScheduleConfig(kind="multistep", milestone_steps=(60_000, 80_000), warmup_steps=500)
        for accumulate in (1, 4):
            config = TrainConfig(steps=steps, batch_size=64, base_lr=1.0, accumulate=accumulate, schedule=rule)
            plan = Schedule(config, per_epoch)
            assert plan.steps == 90_000
            assert [plan.lr(i) for i in (500, 59_999, 60_000, 79_999, 80_000)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
            assert plan.lr(250) == pytest.approx(0.5)
            assert plan.lr(499) < 1


@pytest.mark.parametrize(
    ("options", "rule", "message"),
    [
        (
            {"steps": 20},
            {"warmup_epochs": 2},
            "schedule.warmup_epochs 2 must be less than the training, which has 20 steps; set schedule.warmup_steps",
        ),
        (
            {"epochs": 2},
            {"warmup_steps": 20},
            "schedule.warmup_steps 20 must be less than the training, which has 2 epochs; set schedule.warmup_epochs",
        ),
        (
            {"steps": 20},
            {"kind": "multistep", "milestone_steps": (5, 20)},
            "schedule.milestone_steps: step 20 is outside the 20 steps (warmup: 0 epochs)",
        ),
        (
            {"steps": 20},
            {"kind": "multistep", "milestones": (2,)},
            "schedule.milestones: epoch 2 is outside the 20 steps (warmup: 0 epochs)",
        ),
    ],
)
def test_lengths_in_two_units_are_compared(options, rule, message):
    config = TrainConfig(batch_size=64, base_lr=1.0, schedule=ScheduleConfig(**rule), **options)
    with pytest.raises(InputError, match=re.escape(message)):
        Schedule(config, steps_per_epoch=10)
