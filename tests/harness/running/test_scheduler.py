"""Grids: what runs, in which order, how often, what a failure stops, and what several processes leave to each other."""

from __future__ import annotations

import errno
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.toy_plugins import TINY
from mimbench import registry
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.errors import InputError, LeaseLost, RunError
from mimbench.harness.planning import plan as planning
from mimbench.harness.planning import pretraining as pretrainings
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.checkpoints import find_checkpoint
from mimbench.harness.planning.estimate import Estimator
from mimbench.harness.running.scheduler import Scheduler
from mimbench.harness.running.session import Session
from mimbench.recipe.document import parse_assignments
from mimbench.store.failure import Failure, failure_path, read_failure, read_failures
from mimbench.store.reading import failure_files
from mimbench.text import format_duration

CPU = torch.device("cpu")


def failures_of(bench) -> list[Failure]:
    return read_failures(failure_files(bench.store.root))[0]


def test_each_pretraining_runs_once_with_all_its_tasks_and_seeds_are_outermost(bench):
    outcome = bench.run("simmim,random-init", "toy,other-toy", seeds=(1, 0), vary=["method.mask_ratio=0.3,0.6"])
    once = ["simmim seed 1", "simmim seed 1", "random-init seed 1"]
    assert bench.trained == [*once, *(label.replace("1", "0") for label in once)]
    assert bench.ran == [("toy", 1), ("other-toy", 1)] * 3 + [("toy", 0), ("other-toy", 0)] * 3
    assert len(outcome.records) == 12
    assert outcome.before == 0
    assert outcome.failures == []
    again = bench.run("simmim,random-init", "toy,other-toy", seeds=(1, 0), vary=["method.mask_ratio=0.3,0.6"])
    assert (again.before, again.records) == (12, outcome.records)
    assert len(bench.ran) == 12
    assert bench.said == f"already recorded: 12 of 12 cells ({bench.store.root / 'records'})\n"


def test_a_task_varied_first_still_finds_its_pretraining_trained_once(bench):
    bench.run(tasks="toy", vary=["task.level=1,2", "method.mask_ratio=0.3,0.6"])
    assert len(bench.trained) == 2
    assert bench.said.count("reusing pretraining") == 0


def test_only_what_is_missing_runs(bench):
    bench.run(seeds=(0,))
    outcome = bench.run(tasks="toy,other-toy", seeds=(0, 1))
    assert bench.ran == [("toy", 0), ("other-toy", 0), ("toy", 1), ("other-toy", 1)]
    assert bench.trained == ["simmim seed 0", "simmim seed 1"]
    assert "already recorded: toy of simmim seed 0 (" in bench.said
    assert outcome.before == 1


def test_a_failed_cell_is_noted_with_its_reason_and_the_rest_goes_on(bench):
    bench.fails = {("toy", 0): ValueError("two\nlines"), ("other-toy", 1): RunError("no luck")}
    outcome = bench.run(tasks="toy,other-toy", seeds=(0, 1))
    (first, why), (second, other_why) = outcome.failures
    assert (first.label, second.label) == ("toy of simmim seed 0", "other-toy of simmim seed 1")
    assert other_why.startswith("no luck (task 'other-toy' of no installed package, helpers/toy_plugins.py:")
    assert why.startswith("ValueError: two lines (task 'toy' of ")
    assert len(outcome.records) == 2
    luckless, unforeseen = failures_of(bench)
    assert (luckless.stage, luckless.error, luckless.traceback) == ("task", "RunError", None)
    assert unforeseen.reason == why
    assert "in _task" in (bench.store.root / unforeseen.traceback).read_text()
    assert f"failed: toy of simmim seed 0: {why}" in bench.said
    bench.fails, bench.ran = {}, []
    assert bench.run(tasks="toy,other-toy", seeds=(0, 1)).failures == []
    assert bench.ran == [("toy", 0), ("other-toy", 1)]
    assert failures_of(bench) == []
    assert not (bench.store.root / unforeseen.traceback).exists()


def test_the_traceback_of_a_pretraining_goes_when_it_succeeds(bench):
    at_first = {"vary": ["pretrain.at_epoch=1"], "settings": ["pretrain.epochs=2"]}
    _, cells = bench.planned(**at_first)
    bench.fails = {cells[0].pretraining.label: ValueError("no luck")}
    assert len(bench.run(**at_first).failures) == 1
    (noted,) = failures_of(bench)
    assert (bench.store.root / noted.traceback).exists()
    bench.fails = {}
    assert bench.run(**at_first).failures == []
    assert list(bench.store.root.rglob("error.txt")) == []


@pytest.mark.parametrize("where", ["simmim seed 0", ("toy", 0)])
def test_a_run_whose_lease_was_taken_ends_and_notes_no_failure(bench, where):
    bench.fails = {where: LeaseLost("taken")}
    with pytest.raises(LeaseLost, match="taken"):
        bench.run(seeds=(0, 1))
    assert failures_of(bench) == []
    bench.fails = {}
    assert len(bench.run(seeds=(0, 1)).records) == 2


def test_a_run_keeps_no_checkpoint_that_it_needs_no_more(bench):
    request, cells = bench.planned(tasks="toy,other-toy", seeds=(0, 1))
    scheduler = Scheduler(Session(bench.store, CPU, bench.console), request, [*cells[::2], *cells[1::2]])
    assert len(scheduler.run().records) == 4
    assert bench.trained == ["simmim seed 0", "simmim seed 1"]
    assert scheduler._checkpoints == {}


def test_errors_of_the_machine_are_noted_with_what_to_do(bench):
    bench.fails = {
        "simmim seed 0": RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. you tried to allocate 3221225472 bytes"
        ),
        ("toy", 1): OSError(errno.ENOSPC, "No space left on device", "/runs/features/a.npy"),
        ("other-toy", 1): RuntimeError("DataLoader worker (pid(s) 41) exited unexpectedly"),
    }
    outcome = bench.run(tasks="toy,other-toy", seeds=(0, 1, 2))
    assert len(outcome.records) == 2
    notes = {(failure.task, failure.seed): failure.reason for failure in failures_of(bench)}
    assert notes["toy", 0] == notes["other-toy", 0]
    assert notes["toy", 0].endswith(
        "; memory ran out at 3.0 GiB more, with micro-batches of 32 images: raise pretrain.accumulate, or set "
        "pretrain.auto_batch=true, or set pretrain.grad_checkpointing=true, or lower pretrain.batch_size, or use a "
        "smaller encoder or smaller images"
    )
    assert notes["toy", 1].startswith("OSError: [Errno 28] No space left on device: '/runs/features/a.npy'; free space")
    assert "lower pretrain.workers (0: the main process loads the images)" in notes["other-toy", 1]


def test_a_failure_is_noted_even_where_its_traceback_finds_no_room(bench, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("mimbench.harness.running.failures.write_atomic", full)
    bench.fails = {("toy", 0): ValueError("no luck")}
    bench.run(seeds=(0, 1))
    (noted,) = failures_of(bench)
    assert noted.reason.startswith("ValueError: no luck (task 'toy'")
    assert noted.traceback is None
    assert "the traceback cannot be saved: [Errno 28] No space left on device: " in bench.said


def test_a_traceback_is_not_written_through_a_link(bench, tmp_path):
    linked_file = tmp_path / "kept"
    linked_file.write_text("kept")
    bench.fails = {("toy", 0): ValueError("no luck")}
    bench.run(seeds=(0, 1))
    (noted,) = failures_of(bench)
    path = bench.store.root / noted.traceback
    path.unlink()
    path.symlink_to(linked_file)
    bench.run(seeds=(0, 1))
    assert linked_file.read_text() == "kept"
    assert not path.is_symlink()


def test_a_pretraining_that_fails_is_tried_once_and_stops_only_its_own_cells(bench):
    bench.fails = {"simmim seed 0": MemoryError("too large")}
    outcome = bench.run("simmim,random-init", "toy,other-toy")
    assert bench.trained == ["simmim seed 0", "random-init seed 0"]
    assert [cell.label for cell, _ in outcome.failures] == ["toy of simmim seed 0", "other-toy of simmim seed 0"]
    assert {failure.stage for failure in failures_of(bench)} == {"pretraining"}
    assert "failed: pretraining simmim seed 0, for 2 cells: MemoryError: too large" in bench.said
    assert len(outcome.records) == 2
    bench.fails = {}
    assert len(bench.run("simmim,random-init", "toy,other-toy").records) == 4
    assert bench.trained == ["simmim seed 0", "random-init seed 0", "simmim seed 0"]
    assert failures_of(bench) == []


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_bad_input_that_a_plugin_finds_late_fails_its_cell_and_names_the_plugin(bench, seeds):
    bench.fails = {("toy", 0): InputError("k is too large; lower it")}
    outcome = bench.run(seeds=seeds)
    ((cell, reason),) = outcome.failures
    assert cell.label == "toy of simmim seed 0"
    assert reason.startswith("k is too large; lower it (task 'toy' of no installed package, helpers/toy_plugins.py:")
    assert [failure.reason for failure in failures_of(bench)] == [reason]
    assert bench.said.count("k is too large") == (1 if len(seeds) > 1 else 0)  # the caller prints that of one cell
    assert len(outcome.records) == len(seeds) - 1


def test_a_damaged_checkpoint_fails_its_cell_and_no_other(bench):
    bench.run(seeds=(0,))
    (card,) = bench.store.root.glob("checkpoints/*/checkpoint.json")
    card.write_text(card.read_text().replace('"mask_ratio": 0.6', '"mask_ratio": 0.7'))
    ((cell, reason),) = bench.run(tasks="other-toy").failures
    assert cell.label == "other-toy of simmim seed 0"
    assert "card was altered" in reason
    outcome = bench.run(tasks="other-toy", seeds=(0, 1))
    assert [cell.label for cell, _ in outcome.failures] == ["other-toy of simmim seed 0"]
    assert "card was altered" in outcome.failures[0][1]
    assert len(outcome.records) == 1


class LoadedConfig(ViTConfig):
    weights: Path | None = None


class Loaded(ViT):
    """Reads a file of initial weights whenever it is built."""

    Config = LoadedConfig

    def __init__(self, config, **sizes):
        super().__init__(config, **sizes)
        if config.weights:
            config.weights.read_bytes()


def test_a_checkpoint_is_measured_without_the_file_that_its_encoder_started_from(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.encoders.replacements, "vit", Loaded)
    file = tmp_path / "start.bin"
    file.write_bytes(b"weights")
    (first,) = bench.run(settings=[f"encoder.weights={file}"]).records
    file.unlink()
    checkpoint = find_checkpoint(bench.store.root, first.checkpoint.fingerprint)
    request = Request(["simmim"], ["other-toy"], "smoke", [0], parse_assignments(TINY[:2]), {}, checkpoint)
    cells = planning.plan(request, CPU, bench.cache)
    assert [cell.pretraining.fingerprint for cell in cells] == [first.checkpoint.fingerprint]
    outcome = Scheduler(Session(bench.store, torch.device("cpu"), bench.console), request, cells).run()
    assert [record.task.name for record in outcome.records] == ["other-toy"]
    assert bench.trained == ["simmim seed 0"]
    with pytest.raises(InputError, match=r"encoder\.weights: leave it out with --checkpoint"):
        planning.plan(replace(request, settings={"encoder.weights": str(file)}), CPU, bench.cache)


def test_a_damaged_record_fails_only_its_cell(bench):
    bench.run(seeds=(0, 1))
    damaged = next(bench.store.root.glob("records/*-s0-*.json"))
    damaged.write_text("{}")
    outcome = bench.run(seeds=(0, 1))
    assert [cell.label for cell, _ in outcome.failures] == ["toy of simmim seed 0"]
    assert damaged.name in outcome.failures[0][1]
    assert len(outcome.records) == 1
    assert len(bench.ran) == 2


def test_a_damaged_note_of_a_failure_is_named_and_stops_nothing(bench):
    bench.fails = {("toy", 0): RunError("no luck")}
    bench.run(seeds=(0, 1))
    (path,) = bench.store.root.glob("failures/*.json")
    path.write_text(path.read_text().replace("no luck", "luck"))
    with pytest.raises(InputError, match=rf"{path.name}.*altered or damaged; delete it"):
        read_failure(path)
    bench.fails = {}
    assert len(bench.run(seeds=(0, 1)).records) == 2
    assert not path.exists()


def test_a_note_of_a_failure_that_cannot_be_read_or_removed_hides_no_success(bench):
    _, (cell,) = bench.planned()
    note = failure_path(bench.store.root, cell.record_id)
    note.mkdir(parents=True)
    assert len(bench.run().records) == 1
    assert bench.run().before == 1
    assert note.is_dir()


def test_what_a_process_left_that_was_killed_just_after_it_saved_goes(bench):
    bench.run()
    _, (cell,) = bench.planned()
    left = [bench.store.work(key) for key in (cell.record_id, cell.pretraining.fingerprint)]
    bench.run(tasks="toy,other-toy")
    assert not any(folder.exists() for folder in left)
    assert len(bench.trained) == 1


def test_what_another_process_is_at_is_passed_over_and_looked_at_again(bench, monkeypatch):
    request, cells = bench.planned(tasks="toy,other-toy", seeds=(0, 1, 2))
    others = {seed: ExitStack() for seed in (0, 1)}
    training = cells[0].pretraining.fingerprint
    assert others[0].enter_context(bench.store.lease_if_free(training, "train"))
    assert others[1].enter_context(bench.store.lease_if_free(cells[2].record_id, "measure"))
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(list(bench.ran))
        others[len(slept) - 1].close()

    monkeypatch.setattr("mimbench.harness.running.scheduler.time", SimpleNamespace(sleep=sleep))
    outcome = Scheduler(Session(bench.store, torch.device("cpu"), bench.console), request, cells).run()
    free = [("other-toy", 1), ("toy", 2), ("other-toy", 2)]
    assert slept == [free, [*free, ("toy", 0), ("other-toy", 0)]]
    assert bench.ran[-1] == ("toy", 1)
    assert bench.said.count("waiting: another process runs toy of simmim seed 0 and 2 more") == 1
    assert len(outcome.records) == 6


def test_what_another_process_has_just_failed_at_is_not_tried_here(bench, monkeypatch):
    bench.fails = {("toy", 0): RunError("old")}
    bench.run(seeds=(0, 1))
    bench.fails = {}
    (old,) = failures_of(bench)
    request, cells = bench.planned(seeds=(0, 1))
    grid = Scheduler(Session(bench.store, torch.device("cpu"), bench.console), request, cells)
    bench.store.save_failure(old.model_copy(update={"reason": "new"}))
    outcome = grid.run()
    assert [(cell.label, reason) for cell, reason in outcome.failures] == [("toy of simmim seed 0", "new")]
    assert bench.ran.count(("toy", 0)) == 1


def test_a_record_keeps_the_losses_of_its_pretraining(bench):
    (record,) = bench.run(settings=["pretrain.epochs=3"]).records
    (card,) = bench.store.root.glob("checkpoints/*/checkpoint.json")
    assert record.checkpoint.loss == json.loads(card.read_text())["cost"]["loss"]
    assert len(record.checkpoint.loss) == 3
    (control,) = bench.run("random-init").records
    assert control.checkpoint.loss == []


def test_models_are_built_once_for_all_seeds_tasks_and_training_options(bench, monkeypatch):
    built = []
    build = pretrainings.build_method
    monkeypatch.setattr(pretrainings, "build_method", lambda *a, **b: (built.append(a[0].method), build(*a, **b))[1])
    _, cells = bench.planned(
        "simmim,random-init",
        "toy,other-toy",
        range(5),
        vary=["method.mask_ratio=0.3,0.6", "pretrain.base_lr=1e-3,2e-3"],
    )
    assert len(cells) == 5 * 2 * (4 + 1)
    assert built == ["simmim", "simmim", "random-init"]


def test_estimates_come_from_the_same_things_on_the_same_device(bench):
    bench.run("simmim,random-init", "toy", settings=["pretrain.epochs=2"])
    _, cells = bench.planned("simmim,mae", "toy,other-toy", seeds=(1,), settings=["pretrain.epochs=8"])
    (path,) = (p for p in bench.store.root.glob("checkpoints/*/checkpoint.json") if "simmim" in p.read_text())
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"cost": card["cost"] | {"seconds": 12.8, "images_seen": 128}}))
    for path in bench.store.root.glob("records/*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cost": {"seconds": 3.0, "device": "here"}}))
    estimator = Estimator.from_results(bench.store.root, card["cost"]["device"])
    pretrainings = {cell.pretraining.recipe.method: cell.pretraining for cell in cells}
    assert estimator.pretraining_seconds(pretrainings["simmim"]) == pytest.approx(8 * 64 * 0.1)
    assert estimator.pretraining_seconds(pretrainings["mae"]) is None
    assert estimator.task_seconds(cells[0]) is None
    here = Estimator.from_results(bench.store.root, "here")
    assert (here.checkpoints, here.records) == (0, 2)
    assert here.task_seconds(cells[0]) == 3.0
    estimate = here.estimate(pretrainings.values(), cells)
    assert estimate.seconds == 6.0
    assert estimate.unknown == {"pretraining simmim": 1, "pretraining mae": 1, "other-toy": 2}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"cost": 3}', '{"cost": {"device": "d"}, "recipe": {"encoder": {}}}', '{"cost": null}']
)
def test_no_estimate_is_made_of_damaged_files(tmp_path, content):
    for name in ("records/x.json", "checkpoints/x/checkpoint.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    estimator = Estimator.from_results(tmp_path, "d")
    assert (estimator.checkpoints, estimator.records) == (0, 0)


def test_a_task_with_other_epochs_is_estimated_by_their_ratio(bench):
    _, (cell,) = bench.planned()
    encoder = cell.pretraining.recipe.as_tables()["encoder"]
    estimator = Estimator("d")
    trained = {"train": {"epochs": 2}}
    estimator.add_record(
        {
            "cost": {"seconds": 10.0, "device": "d"},
            "protocol": {**cell.protocol, **trained},
            "recipe": {"encoder": encoder},
        }
    )
    assert estimator.task_seconds(replace(cell, protocol={**cell.protocol, "train": {"epochs": 6}})) == pytest.approx(
        30.0
    )
    assert estimator.task_seconds(cell) == 10.0
    assert estimator.task_seconds(replace(cell, protocol={**cell.protocol, "dataset": {"name": "else"}})) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.4, "4 s"), (99, "99 s"), (150, "2 min"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_durations_are_printed_as_a_person_would_say_them(seconds, words):
    assert format_duration(seconds) == words


def test_without_a_terminal_the_grid_is_printed_at_its_end(bench):
    bench.fails = {("toy", 1): RunError("no luck")}
    bench.run(seeds=(0, 1, 2))
    assert "grid: 2 of 3 cells done, 1 failed, 0 left" in bench.said
    bench.run(tasks="other-toy")
    assert "grid:" not in bench.said


def test_a_failure_of_a_newer_schema_is_refused(bench):
    bench.fails = {("toy", 0): RunError("no luck")}
    bench.run(seeds=(0, 1))
    (failure,) = failures_of(bench)
    assert failure_path(bench.store.root, failure.id).exists()
    newer = Failure.model_construct(**(dict(failure) | {"schema_version": 2}))
    bench.store.save_failure(newer)
    with pytest.raises(InputError, match="corrupt"):
        read_failure(failure_path(bench.store.root, failure.id))
