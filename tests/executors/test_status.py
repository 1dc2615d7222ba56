"""`mimbench status`: read from the results folder alone."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.refusals import refused
from mimbench.errors import InputError
from mimbench.executors import submission as submission_module
from mimbench.executors.status import status_of_folder
from mimbench.executors.submission import PlannedCell, Submission, read_submissions
from mimbench.executors.worker_note import WorkerNote, write_note
from mimbench.leases import hold_lease
from mimbench.store.failure import Failure, failure_path, write_failure

CELLS = [PlannedCell(f"mae-knn-s{seed}", f"knn of mae seed {seed}", f"c{seed}", f"t{seed}", {}) for seed in range(5)]


def submit(results: Path, name: str = "20260101-000000-k", cells=CELLS) -> Submission:
    submission = Submission(
        folder=results / "jobs" / name,
        key=name.rpartition("-")[2],
        executor="slurm",
        config={"partition": "gpu"},
        options={"device": "auto"},
        plugins=[],
        directory="/",
        arguments=["run", "--grid", "grid.toml", "--executor", "slurm"],
        host="login1",
        submitted="2026-01-01T00:00:00+00:00",
        cells=[asdict(cell) for cell in cells],
        jobs=["7_0", "7_1"],
    )
    submission.save()
    return submission


def record(results: Path, cell: PlannedCell) -> None:
    path = results / "records" / f"{cell.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def fail(results: Path, cell: PlannedCell, reason: str) -> None:
    body = {"id": cell.id, "label": cell.label, "stage": "task", "reason": reason, "error": "RunError"}
    body |= {"method": "mae", "task": "knn", "seed": 0, "checkpoint": cell.checkpoint, "recipe_name": "smoke"}
    write_failure(failure_path(results, cell.id), Failure(**body, recipe_passed={}, provenance={}))


@pytest.fixture
def results(tmp_path):
    """Cell 0 is recorded, 1 failed, 2 is measured now, 3 is pretrained now, and 4 is left."""
    folder = tmp_path / "runs"
    submit(folder)
    record(folder, CELLS[0])
    fail(folder, CELLS[1], "no luck")
    work = folder / "work"
    with hold_lease(work / CELLS[2].id, CELLS[2].label), hold_lease(work / "t3", "pretraining mae seed 3"):
        yield folder


def test_each_cell_has_its_state(results):
    status = status_of_folder(results)
    assert [cell.state for cell in status.cells] == ["recorded", "failed", "running", "running", "left"]
    assert status.cells[1].reason == "no luck"


def test_the_command_shows_cells_workers_and_reasons(results, quick):
    write_note(results / "jobs" / "20260101-000000-k", WorkerNote(1, "7_1", "n3", 9, "", 1, "refused", "no data", 2))
    shown = quick("status").stdout
    lines = shown.splitlines()
    assert lines[0] == "submitted  2026-01-01T00:00:00+00:00 from login1: 2 workers of slurm (7_0, 7_1)"
    assert lines[1] == "           mimbench run --grid grid.toml --executor slurm"
    assert lines[2] == "cells      5: 1 recorded, 2 running, 1 failed, 1 left"
    assert "running    pretraining mae seed 3 (" in shown
    assert "failed     knn of mae seed 1: no luck" in lines
    assert "refused    worker 7_1 on n3: no data" in lines
    counts = json.loads(quick("status", "--json").stdout)["counts"]
    assert counts == {"recorded": 1, "failed": 1, "running": 2, "left": 1}


def test_the_workers_plan_counts_more_than_that_of_the_submitting_process(results):
    other = [asdict(cell) | {"id": f"{cell.id}-bf16"} for cell in CELLS]
    (results / "jobs" / "20260101-000000-k" / "plan.json").write_text(json.dumps({"cells": other}))
    assert [cell.id for cell in status_of_folder(results).cells] == [cell["id"] for cell in other]


def test_cells_of_several_submissions_count_once(results):
    extra = PlannedCell("simmim-knn-s0", "knn of simmim seed 0", "x", "x", {})
    submit(results, "20260102-000000-k2", [*CELLS[:2], extra])
    assert len(status_of_folder(results).cells) == 6


def test_a_damaged_submission_is_left_out(results):
    damaged = results / "jobs" / "20260103-000000-k3"
    damaged.mkdir()
    (damaged / "submission.json").write_text("{")
    assert len(read_submissions(results)) == 1


def test_a_plan_needs_no_submission(quick, tmp_path):
    run = ["--method", "random-init", "--task", "knn", "--recipe", "smoke", "--seeds", "0,1"]
    done = quick("status", *run)
    assert done.stdout == "cells      2: 0 recorded, 0 running, 0 failed, 2 left\n"
    assert not (tmp_path / "runs").exists()


def test_without_submission_or_plan_it_shows_what_was_tried(tmp_path):
    record(tmp_path, CELLS[0])
    fail(tmp_path, CELLS[1], "no luck")
    status = status_of_folder(tmp_path)
    assert [cell.state for cell in status.cells] == ["recorded", "failed"]
    assert not status.is_planned


def test_a_folder_that_is_not_there_is_refused(quick):
    refused(quick("status", "--results", "nowhere"), "results folder nowhere does not exist")


class Pretraining:
    fingerprint, training = "c0", "t0"


class Cell:
    record_id, label, pretraining, varied = "mae-knn-s0", "knn of mae seed 0", Pretraining, {}


class Other(Cell):
    record_id = "mae-knn-s0-other"


def test_workers_that_start_at_the_same_time_run_the_same_cells(results, monkeypatch):
    (submission,) = read_submissions(results)
    write = submission_module.write_json

    def write_slowly(path, body):
        time.sleep(0.2)
        write(path, body)

    def refuses(cell) -> bool:
        try:
            submission.note_plan([cell])
        except InputError:
            return True
        return False

    monkeypatch.setattr(submission_module, "write_json", write_slowly)
    with ThreadPoolExecutor(2) as workers:
        assert sorted(workers.map(refuses, (Cell, Other))) == [False, True]


def test_workers_of_one_submission_run_the_same_cells(results):
    (submission,) = read_submissions(results)
    submission.note_plan([Cell])
    submission.note_plan([Cell])
    with pytest.raises(InputError, match="would run knn of mae seed 0 with other settings than the first worker"):
        submission.note_plan([Other])
    with pytest.raises(InputError, match="would run 2 cells, not 1,"):
        submission.note_plan([Cell, Cell])
