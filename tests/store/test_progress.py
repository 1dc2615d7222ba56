"""Notes of trainings that run: what is written is read again, and damage is left out."""

from __future__ import annotations

import pytest

from mimbench.leases import hold_lease
from mimbench.store.progress import PROGRESS, TrainingProgress, list_running, read_progress, work_keys, write_progress

NOTE = TrainingProgress("mae, seed 0", "epoch", 1.5, 4, [(0.5, 0.9), (1.5, 0.4)], {"accuracy": 0.25}, 120.0, 30.4)


def test_a_note_is_read_as_it_was_written(tmp_path):
    write_progress(tmp_path / PROGRESS, NOTE)
    assert read_progress(tmp_path / PROGRESS) == NOTE
    assert NOTE.describe() == "epoch 2/4, loss 0.4000, 30 s left"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"label": "x"}', '{"loss": [1]}'])
def test_a_damaged_note_is_left_out(tmp_path, text):
    (tmp_path / PROGRESS).write_text(text)
    assert read_progress(tmp_path / PROGRESS) is None


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "work").write_text("a file where the folder has to be")
    write_progress(tmp_path / "work" / PROGRESS, NOTE)
    assert (tmp_path / "work").is_file()


@pytest.mark.parametrize("root", [".", ".."])
def test_running_trainings_are_those_whose_lease_is_held(tmp_path, root):
    results = tmp_path / "runs"
    again = work_keys("aaaa")[1]
    for folder in ("aaaa", f"{again}/1", "bbbb"):
        write_progress(results / "work" / folder / PROGRESS, NOTE)
    with hold_lease(results / "work" / "aaaa", "pretrain mae"):
        (running,) = list_running(results / root)
        assert running.lease.what == "pretrain mae"
        assert running.trainings == [NOTE, NOTE]
    assert list_running(results / root) == []
