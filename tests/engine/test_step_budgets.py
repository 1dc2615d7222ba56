"""Budgets in optimizer steps: equal to the same budget in epochs, and free to end within an epoch."""

from __future__ import annotations

import re

import pytest
import torch

from helpers.noting import Probe, train
from mimbench.contract import PretrainConfig, ScheduleConfig, TrainConfig
from mimbench.engine.hooks import HistoryHook
from mimbench.engine.state_files import amount_done
from mimbench.errors import Interrupted, RunError

FIELDS = {"batch_size": 8, "base_lr": 0.1}


def weight_of(model: Probe) -> torch.Tensor:
    return model.linear.weight.detach()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_as_many_steps_as_in_the_epochs_give_the_same_weights(tmp_path, accumulate):
    in_epochs, in_steps = Probe(), Probe()
    by_epoch = ScheduleConfig(warmup_epochs=1, min_lr=1e-4)
    by_step = ScheduleConfig(warmup_steps=5, min_lr=1e-4)
    expected, _ = train(in_epochs, tmp_path / "epochs", epochs=3, accumulate=accumulate, schedule=by_epoch)
    report, _ = train(in_steps, tmp_path / "steps", steps=15, accumulate=accumulate, schedule=by_step)
    assert in_steps.seen == in_epochs.seen
    assert in_steps.progress == in_epochs.progress
    assert torch.equal(weight_of(in_steps), weight_of(in_epochs))
    assert (report.loss, report.logs) == (expected.loss, expected.logs)
    assert (report.steps, report.images_seen) == (expected.steps, expected.images_seen) == (15, 120)


def test_a_training_may_end_within_an_epoch(tmp_path):
    model, whole = Probe(), Probe()
    report, said = train(model, tmp_path / "8", steps=8, schedule=ScheduleConfig(kind="constant"))
    assert (report.steps, report.images_seen, len(report.loss)) == (8, 64, 2)
    assert len(report.logs["a_loss_that_is_only_shown"]) == 2
    assert model.progress == pytest.approx([(i + 1) / 8 for i in range(8)])
    assert re.search(r"probe: step 8/8  .* images/s  loss 0\.\d+", said)
    longer, _ = train(whole, tmp_path / "10", steps=10, schedule=ScheduleConfig(kind="constant"))
    assert model.seen == whole.seen[:8]
    assert (longer.loss[0], len(longer.loss)) == (report.loss[0], 2)
    assert longer.loss[1] != report.loss[1]
    assert amount_done(tmp_path / "8", "step") == 8
    assert amount_done(tmp_path / "8") == 1.6


def test_the_last_loss_is_the_mean_over_the_steps_of_the_partial_epoch(tmp_path):
    report, _ = train(Probe(), tmp_path, steps=7)
    shown = report.logs["a_loss_that_is_only_shown"]
    assert report.loss == pytest.approx([value / 1000 for value in shown])
    losses = torch.load(tmp_path / "step_7.pth", weights_only=True)["history"]["losses"]
    assert len(losses) == 2
    assert report.loss[1] == float(losses.mean())


def test_a_budget_that_is_shorter_than_an_epoch(tmp_path):
    model = Probe()
    report, _ = train(model, tmp_path, steps=3)
    assert (report.steps, len(report.loss), len(model.seen)) == (3, 1, 3)


def test_a_training_that_was_killed_in_its_last_partial_epoch_resumes(tmp_path, monkeypatch):
    unbroken, broken, resumed = Probe(), Probe(), Probe()
    whole, _ = train(unbroken, tmp_path / "whole", steps=9)
    broken.fail_at, broken.loss_at_fail = 9, torch.nan
    with pytest.raises(
        RunError, match=r"the loss is nan at step 4 of epoch 2.*raise task\.train\.schedule\.warmup_steps.*step_8\.pth"
    ):
        train(broken, tmp_path / "broken", steps=9, checkpoint_every=None, checkpoint_steps=4)
    report, said = train(resumed, tmp_path / "broken", steps=9, checkpoint_every=None, checkpoint_steps=4)
    assert "resumes after step 8 of 9" in said
    assert resumed.seen == unbroken.seen[8:]
    assert torch.equal(weight_of(resumed), weight_of(unbroken))
    assert (report.loss, report.logs) == (whole.loss, whole.logs)
    assert (report.steps, report.images_seen) == (9, 72)


def test_a_signal_in_the_last_partial_epoch_saves_that_step(tmp_path, monkeypatch):
    unbroken, stopped, resumed = Probe(), Probe(), Probe()
    whole, _ = train(unbroken, tmp_path / "whole", steps=8)
    after = HistoryHook.after_train_iter

    def stop(hook, runner, *arguments, **named):
        after(hook, runner, *arguments, **named)
        if runner.iter + 1 == 7:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(HistoryHook, "after_train_iter", stop)
        with pytest.raises(Interrupted, match="saved after step 7 of 8"):
            train(stopped, tmp_path / "stopped", steps=8)
    report, _ = train(resumed, tmp_path / "stopped", steps=8)
    assert resumed.seen == unbroken.seen[7:]
    assert torch.equal(weight_of(resumed), weight_of(unbroken))
    assert report.loss == whole.loss


def test_a_finished_training_that_is_resumed_trains_no_step(tmp_path):
    first, again = Probe(), Probe()
    whole, _ = train(first, tmp_path, steps=8)
    report, _ = train(again, tmp_path, steps=8)
    assert (again.seen, report.loss, report.steps) == ([], whole.loss, 8)
    assert torch.equal(weight_of(again), weight_of(first))


def test_weights_are_taken_after_any_step_and_a_later_end_continues(tmp_path):
    whole, part = Probe(), Probe()
    taken, reports = [], []
    report, _ = train(
        whole,
        tmp_path / "whole",
        steps=12,
        after={5: reports.append, 7: lambda report: (taken.append(weight_of(whole).clone()), reports.append(report))},
    )
    early, _ = train(part, tmp_path / "part", steps=12, until=7)
    assert torch.equal(weight_of(part), taken[0])
    assert [(one.steps, len(one.loss)) for one in (*reports, report)] == [(5, 1), (7, 2), (12, 3)]
    assert early.loss == reports[1].loss
    assert early.loss[1] != report.loss[1]
    continued = Probe()
    later, _ = train(continued, tmp_path / "part", steps=12)
    assert continued.seen == whole.seen[7:]
    assert (later.loss, later.logs) == (report.loss, report.logs)
    assert torch.equal(weight_of(continued), weight_of(whole))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2, "steps": 3}, "epochs 2 and steps 3 are both set: set only one"),
        ({"epochs": None}, "epochs and steps are both none: set one of them"),
        ({"steps": 3, "schedule": {"warmup_steps": 3}}, "warmup_steps 3 must be less than steps, which is 3"),
        ({"steps": 3, "schedule": {"warmup_steps": 1, "warmup_epochs": 1}}, "warmup_epochs 1 and warmup_steps 1"),
        ({"steps": 3, "schedule": {"milestone_steps": [1], "milestones": [1]}}, "milestones and milestone_steps"),
        ({"steps": 3, "at_epoch": 1}, "at_epoch 1: the budget is in steps; use at_step"),
        ({"epochs": 3, "at_step": 1}, "at_step 1: the budget is in epochs; use at_epoch, or set steps"),
        ({"steps": 3, "at_step": 4}, "at_step 4 is more than the 3 steps"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PretrainConfig(**FIELDS, **options)


def test_an_unset_budget_in_steps_leaves_fingerprints_as_they_are():
    assert "steps" not in TrainConfig(epochs=3, **FIELDS).shaping()
    assert "warmup_steps" not in TrainConfig(epochs=3, **FIELDS).shaping()["schedule"]
    in_steps = PretrainConfig(steps=9, at_step=9, checkpoint_steps=2, **FIELDS)
    assert in_steps.shaping()["steps"] == 9
    assert in_steps.shaping()["epochs"] is None
    assert not {"at_step", "checkpoint_steps"} & set(in_steps.shaping())
    assert (in_steps.unit, in_steps.length, in_steps.end) == ("step", 9, 9)
