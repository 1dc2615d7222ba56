"""Weights at several epochs of one training: trained once, kept on the way, the same as if asked for alone."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mimbench.engine.hooks import HistoryHook
from mimbench.errors import InputError, RunError
from mimbench.harness.planning.dryrun import describe_plan, summarize_plan
from mimbench.harness.planning.estimate import Estimator
from mimbench.harness.planning.plan import plan
from mimbench.recipe.document import parse_assignments
from mimbench.store.store import Store

CPU = torch.device("cpu")

FOUR = ["pretrain.epochs=4", "pretrain.checkpoint_every=1"]
SOME = ["pretrain.at_epoch=1,3,4"]


def hashes(bench) -> dict[int, str]:
    """Hash of the encoder by epoch of the schedule."""
    by_epoch = {}
    for path in bench.store.root.glob("checkpoints/*/checkpoint.json"):
        card = json.loads(path.read_text())
        by_epoch[card["what"]["pretrain"].get("at_epoch", 4)] = card["sha256"]["encoder.safetensors"]
    return by_epoch


@contextmanager
def stopped_after(epochs: int, monkeypatch):
    """Trainings stop, as if killed, where the next epoch would begin."""
    begins = HistoryHook.before_train_epoch

    def stops(hook, runner):
        if runner.epoch == epochs:
            raise RunError("stopped")
        begins(hook, runner)

    with monkeypatch.context() as patch:
        patch.setattr(HistoryHook, "before_train_epoch", stops)
        yield


def test_all_epochs_come_of_one_training(bench):
    outcome = bench.run(tasks="toy,other-toy", settings=FOUR, vary=SOME)
    assert bench.trained == ["simmim seed 0"]
    assert [record.varied.get("pretrain.at_epoch") for record in outcome.records] == [1, 1, 3, 3, None, None]
    assert [len(record.checkpoint.loss) for record in outcome.records] == [1, 1, 3, 3, 4, 4]
    images = [record.checkpoint.cost.images_seen for record in outcome.records]
    assert images == [64, 64, 192, 192, 256, 256]
    assert len({record.pretraining for record in outcome.records}) == 3
    assert len(set(hashes(bench).values())) == 3
    assert not list(bench.store.root.glob("work/*/"))


def test_an_epoch_has_the_weights_of_a_run_that_keeps_only_it_and_the_end_those_of_a_plain_run(bench):
    bench.run(settings=FOUR, vary=SOME)
    together = hashes(bench)
    bench.moves("alone")
    bench.run(settings=[*FOUR, "pretrain.at_epoch=3"])
    assert hashes(bench) == {3: together[3]}
    bench.run(settings=FOUR)
    assert hashes(bench) == {3: together[3], 4: together[4]}
    assert bench.trained == ["simmim seed 0 at epoch 3", "simmim seed 0"]


def test_the_schedule_s_last_epoch_is_the_plain_pretraining(bench):
    (plain,) = bench.run(settings=FOUR).records
    (named,) = bench.run(settings=FOUR, vary=["pretrain.at_epoch=4"]).records
    assert (named.id, named.varied) == (plain.id, {})
    assert len(bench.trained) == 1
    bench.moves("elsewhere")
    (first,) = bench.run(settings=FOUR, vary=["pretrain.at_epoch=4"]).records
    assert (first.id, first.recipe, first.varied) == (plain.id, plain.recipe, {})


def test_epoch_0_is_the_encoder_as_it_was_initialised(bench):
    settings = [*FOUR, "method.init=encoder"]
    first, _ = bench.run(settings=settings, vary=["pretrain.at_epoch=0,1"]).records
    (control,) = bench.run("random-init", settings=FOUR).records
    assert first.checkpoint.weights_sha256 == control.checkpoint.weights_sha256
    assert (first.checkpoint.loss, first.checkpoint.cost.steps) == ([], 0)


def test_only_what_is_missing_is_trained_and_no_further_than_asked(bench):
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=1"])
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=1,2"])
    assert sorted(hashes(bench)) == [1, 2]
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=1,2"])
    assert bench.trained == ["simmim seed 0 at epoch 1", "simmim seed 0 at epoch 2"]


def test_an_interrupted_training_that_is_past_a_requested_epoch_is_not_resumed_for_it(bench, monkeypatch):
    with stopped_after(3, monkeypatch):
        assert len(bench.run(settings=FOUR, seeds=(0, 1)).failures) == 2
    left = sorted(bench.store.root.glob("work/*/step_*.json"))
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=2"])
    assert sorted(bench.store.root.glob("work/*/step_*.json")) == left
    assert sorted(hashes(bench)) == [2]
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=2,4"])
    assert sorted(hashes(bench)) == [2, 4]
    assert len({path.parent for path in bench.store.root.glob("work/*/step_*.json")}) == 1  # that of seed 1


def test_a_training_stopped_on_the_way_goes_on_and_keeps_the_same_weights(bench, monkeypatch):
    bench.run(settings=FOUR, vary=SOME)
    whole = hashes(bench)
    bench.moves("stopped")
    with stopped_after(2, monkeypatch):
        outcome = bench.run(settings=FOUR, vary=SOME)
    assert [cell.label for cell, _ in outcome.failures] == ["toy of simmim seed 0 at epoch 3", "toy of simmim seed 0"]
    assert [dict(record.varied) for record in outcome.records] == [{"pretrain.at_epoch": 1}]
    assert len(bench.run(settings=FOUR, vary=SOME).records) == 3
    assert hashes(bench) == whole


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_training_that_stopped_right_at_a_requested_epoch_still_keeps_it(bench, monkeypatch, epoch):
    bench.run(settings=FOUR, vary=[f"pretrain.at_epoch=0,{epoch},4"])
    whole = hashes(bench)
    bench.moves("stopped")
    with stopped_after(epoch, monkeypatch):
        bench.run(settings=FOUR, seeds=(0, 1))
    assert len(bench.run(settings=FOUR, vary=[f"pretrain.at_epoch=0,{epoch},4"]).records) == 3
    assert hashes(bench) == whole


def test_a_training_that_stopped_right_at_the_only_requested_epoch_is_not_run_again(bench, monkeypatch):
    with stopped_after(2, monkeypatch):
        bench.run(settings=FOUR, seeds=(0, 1))
    steps = []
    monkeypatch.setattr(HistoryHook, "after_train_epoch", lambda hook, runner: steps.append(runner.epoch))
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=2"])
    assert (sorted(hashes(bench)), steps) == ([2], [])


def test_a_training_that_fails_is_tried_once_for_all_its_epochs(bench, monkeypatch):
    with stopped_after(2, monkeypatch):
        outcome = bench.run(tasks="toy,other-toy", settings=FOUR, vary=["pretrain.at_epoch=1,3,4"])
    assert bench.trained == ["simmim seed 0"]
    assert len(outcome.records) == 2
    assert len(outcome.failures) == 4
    assert "grid: 2 of 6 cells done, 4 failed, 0 left" in bench.said
    assert bench.said.count("failed: pretraining") == 1


def test_nothing_is_left_of_a_training_that_ran_again(bench, monkeypatch):
    with stopped_after(3, monkeypatch):
        bench.run(settings=FOUR, seeds=(0, 1))
    save = Store.save_checkpoint

    def killed(*arguments, **named):
        save(*arguments, **named)
        raise RunError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save_checkpoint", killed)
        bench.run(settings=FOUR, vary=["pretrain.at_epoch=2,3"])
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=2,3"], seeds=(0, 1))
    bench.run(settings=FOUR, seeds=(0, 1))
    bench.run(tasks="other-toy", settings=FOUR, seeds=(0, 1))
    assert not list(bench.store.root.glob("work/*/"))


def test_a_damaged_epoch_fails_only_its_cell(bench):
    bench.run(settings=FOUR, vary=["pretrain.at_epoch=1,3"])
    (damaged,) = (p for p in bench.store.root.glob("checkpoints/*/checkpoint.json") if '"at_epoch": 1' in p.read_text())
    damaged.write_text("{}")
    outcome = bench.run(tasks="other-toy", settings=FOUR, vary=SOME)
    assert [cell.label for cell, _ in outcome.failures] == ["other-toy of simmim seed 0 at epoch 1"]
    assert len(outcome.records) == 2


def test_epochs_of_a_training_that_another_process_is_at_wait_for_it(bench, monkeypatch):
    _, cells = bench.planned(settings=FOUR, vary=SOME)
    other = ExitStack()
    assert other.enter_context(bench.store.lease_if_free(cells[0].pretraining.training, "train"))
    assert {cell.pretraining.training for cell in cells} == {cells[-1].pretraining.fingerprint}
    trained = []

    def sleep(seconds: float) -> None:
        trained.extend(bench.trained)
        other.close()

    monkeypatch.setattr("mimbench.harness.running.scheduler.time", SimpleNamespace(sleep=sleep))
    assert len(bench.run(settings=FOUR, vary=SOME).records) == 3
    assert trained == []
    assert bench.trained == ["simmim seed 0"]


def test_a_plan_counts_trainings_and_takes_their_time_once(bench):
    bench.run(settings=FOUR, seeds=(9,))
    (path,) = bench.store.root.glob("checkpoints/*/checkpoint.json")
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"cost": card["cost"] | {"seconds": 25.6, "images_seen": 256}}))
    _, cells = bench.planned(settings=FOUR, vary=["pretrain.at_epoch=1,3"])
    estimator = Estimator.from_results(bench.store.root, card["cost"]["device"])
    assert estimator.estimate([cell.pretraining for cell in cells], []).pretraining == pytest.approx(3 * 64 * 0.1)
    description = describe_plan(summarize_plan(cells, bench.store.root, card["cost"]["device"]), bench.store.root)
    assert "pretrainings: 1, saved at 2 epochs in all, 0 done, 1 to run" in description


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["pretrain.at_epoch=5"], r"pretrain\.at_epoch 5 is more than the 4 epochs"),
        (["pretrain.at_epoch=-1"], "pretrain.at_epoch = -1: it must be greater than or equal to 0"),
        (["pretrain.at_epoch=soon"], "pretrain.at_epoch = 'soon': it must be a valid integer"),
    ],
)
def test_an_impossible_epoch_is_refused(bench, settings, said):
    with pytest.raises(InputError, match=said):
        bench.planned(settings=[*FOUR, *settings])


@pytest.mark.parametrize(
    "setting", ["pretrain.at_epoch=1", "pretrain.base_lr=1e-3", "methods.simmim.pretrain.epochs=9"]
)
def test_a_given_checkpoint_is_pretrained_already(bench, setting):
    bench.run(settings=FOUR)
    request, (cell,) = bench.planned(settings=FOUR)
    with_checkpoint = replace(request, settings={}, checkpoint=bench.store.checkpoint(cell.pretraining.fingerprint))
    assert len(plan(with_checkpoint, CPU, bench.cache)) == 1
    with pytest.raises(InputError, match=f"{setting.split('=')[0]}: leave it out with --checkpoint"):
        plan(replace(with_checkpoint, settings=parse_assignments([setting])), CPU, bench.cache)
    cosmetic = replace(with_checkpoint, settings=parse_assignments(["pretrain.workers=1"]))
    assert len(plan(cosmetic, CPU, bench.cache)) == 1


def test_an_epoch_s_checkpoint_can_be_given(bench):
    bench.run(settings=[*FOUR, "pretrain.at_epoch=1"])
    request, (cell,) = bench.planned(settings=[*FOUR, "pretrain.at_epoch=1"])
    with_checkpoint = replace(request, settings={}, checkpoint=bench.store.checkpoint(cell.pretraining.fingerprint))
    (cell_of_stored,) = plan(with_checkpoint, CPU, bench.cache)
    assert cell_of_stored.pretraining.recipe.pretrain.end == 1


def test_a_record_of_a_given_checkpoint_notes_how_it_was_pretrained(bench):
    bench.run(settings=FOUR)
    request, (cell,) = bench.planned(settings=FOUR)
    assert "pretrained" not in cell.pretraining.tables()
    data = {path: value for path, value in request.settings.items() if path.startswith("data.")}
    with_checkpoint = replace(request, settings=data, checkpoint=bench.store.checkpoint(cell.pretraining.fingerprint))
    for setting, noted in (
        ({"pretrain.workers": 1}, {}),
        ({"encoder.drop_path": 0.5}, {"encoder.drop_path": 0.0}),
        ({"data.train_limit": 99}, {"data.train_limit": cell.pretraining.recipe.data.train_limit}),
    ):
        (cell_of_stored,) = plan(replace(with_checkpoint, settings=data | setting), CPU, bench.cache)
        assert cell_of_stored.pretraining.tables()["pretrained"] == noted


def test_a_control_that_trains_nothing_has_no_epochs(bench):
    _, cells = bench.planned("random-init", vary=["pretrain.at_epoch=0,1"])
    assert [dict(cell.varied) for cell in cells] == [{}]
    _, (cell,) = bench.planned("random-init", settings=["pretrain.at_epoch=1"])
    assert cell.pretraining.recipe.pretrain.at_epoch is None


@pytest.mark.parametrize("wrong", ["pretrain.bogus=1,2", "pretrain.epochs=-1,1"])
def test_what_is_wrong_is_refused_for_a_control_too(bench, wrong):
    with pytest.raises(InputError, match="pretrain"):
        bench.planned("random-init", vary=[wrong])


def test_the_last_epoch_is_the_last_in_every_table(bench):
    _, cells = bench.planned(settings=FOUR, vary=["methods.simmim.pretrain.at_epoch=1,4"])
    assert [dict(cell.varied) for cell in cells] == [{"methods.simmim.pretrain.at_epoch": 1}, {}]


def test_a_teacher_that_is_saved_early_is_not_trained_and_can_be_fine_tuned(quick, tmp_path):
    """The exported encoder is I-JEPA's teacher: its weights are saved at epoch 0, and its pretraining goes on."""
    command = ("run", "--method", "ijepa", "--task", "finetune", "--recipe", "smoke", "--vary", "pretrain.at_epoch=0,2")
    done = quick(*command)
    assert done.returncode == 0, done.stderr
    assert "receive no gradient" not in done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/records/*.json"))) == 2
