"""`auto_batch`: the micro-batch is chosen for the device, and the training is that of its `accumulate`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mimbench.contract import Config, TrainConfig
from mimbench.errors import InputError
from mimbench.harness.forecast import auto_batch
from mimbench.harness.forecast.auto_batch import BatchChooser
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.recipe.document import parse_assignments, read
from mimbench.recipe.resolve import resolve

CPU = torch.device("cpu")
SMALL = 8 * 2**20
"""Bytes: a step of the recipe "smoke" takes 18 MiB with its 64 images."""
AUTO = "--set", "pretrain.auto_batch=true"


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(auto_batch, "memory_of", lambda device: SMALL / auto_batch._OF_MAIN_MEMORY)


def cell_of(cache, task, *settings, lines=None):
    batches = BatchChooser(CPU, (lines if lines is not None else []).append)
    (cell,) = plan(
        Request(["simmim"], [task], "smoke", settings=parse_assignments(list(settings))), CPU, cache, batches
    )
    return cell


def test_the_fingerprint_is_that_of_the_accumulation_that_was_chosen(cache, small_memory):
    lines = []
    chosen = cell_of(cache, "knn", "pretrain.auto_batch=true", lines=lines)
    accumulate = chosen.pretraining.recipe.pretrain.accumulate
    assert 64 % accumulate == 0
    assert accumulate > 1
    assert lines == [
        f"pretraining simmim: auto_batch found micro-batches of {64 // accumulate} images; the same training "
        f"elsewhere: --set pretrain.accumulate={accumulate}"
    ]
    by_hand = cell_of(cache, "knn", f"pretrain.accumulate={accumulate}")
    assert chosen.pretraining.fingerprint == by_hand.pretraining.fingerprint
    assert chosen.record_id == by_hand.record_id
    assert by_hand.pretraining.fingerprint != cell_of(cache, "knn").pretraining.fingerprint


def test_nothing_changes_if_the_whole_batch_fits(cache):
    chosen = cell_of(cache, "finetune", "pretrain.auto_batch=true", "task.train.auto_batch=true")
    assert chosen.record_id == cell_of(cache, "finetune").record_id


def test_tasks_are_tried_too(cache, small_memory):
    chosen = cell_of(cache, "finetune", "task.train.auto_batch=true")
    accumulate = chosen.task.config.train.accumulate
    assert accumulate > 1
    assert chosen.record_id == cell_of(cache, "finetune", f"task.train.accumulate={accumulate}").record_id


def test_batch_norm_that_takes_no_single_image_is_tried_with_two(cache, small_memory):
    cell = cell_of(cache, "linear-probe", "task.probe=trained", "task.train.auto_batch=true")
    assert cell.task.config.train.accumulate == 1


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_scenes_of_one_size_need_no_size_in_the_options(cache, task):
    cell = cell_of(cache, task, "task.train.auto_batch=true")
    assert cell.record_id == cell_of(cache, task).record_id


def test_what_cannot_be_tried_is_refused(cache, monkeypatch):
    monkeypatch.setattr(auto_batch, "memory_of", lambda device: 2**16)
    with pytest.raises(InputError, match=r"not even a micro-batch of one image fits; set pretrain\.grad"):
        cell_of(cache, "knn", "pretrain.auto_batch=true")


def test_a_run_prints_and_records_the_choice(quick, small_memory):
    arguments = ("run", "--method", "simmim", "--task", "knn", "--recipe", "smoke", *AUTO, "--json")
    done = quick(*arguments)
    assert done.returncode == 0, done.stderr
    assert "auto_batch found micro-batches of " in done.stderr
    (record,) = json.loads(done.stdout)
    assert record["recipe"]["pretrain"]["accumulate"] > 1
    assert record["recipe_passed"]["set"] == {"pretrain.auto_batch": True}
    again = quick(*arguments)
    assert json.loads(again.stdout)[0]["id"] == record["id"]


def test_trainings_within_a_method_have_no_choice():
    class Options(Config):
        train: TrainConfig = TrainConfig(epochs=1, batch_size=8, base_lr=1, auto_batch=True)

    recipe = replace(resolve("smoke", read("smoke"), "simmim", {}, None), method_config=Options())
    with pytest.raises(
        InputError, match=r"^method.train.auto_batch is for pretrain and task.train; set method.train.a"
    ):
        BatchChooser(CPU, print).of_pretraining(recipe, 1)
