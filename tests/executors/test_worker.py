"""How a worker ends, and with which exit code."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from mimbench.errors import UNFINISHED, Interrupted
from mimbench.executors import slurm_task, submission, worker
from mimbench.executors.worker_note import read_notes, start_note


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Run one process of a worker, which a signal stops. Returns its exit code, and for each call of `requeue` the
    handler of SIGTERM and the state in the note."""
    before = signal.getsignal(signal.SIGTERM)

    def run(number: int, rank: int, is_requeued: bool = True):
        requeues = []

        def requeue() -> bool:
            requeues.append((signal.getsignal(signal.SIGTERM), read_notes(tmp_path)["7"].state))
            return is_requeued

        def interrupt(_):
            raise Interrupted(number)

        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr(worker, "_execute", interrupt)
        executor = SimpleNamespace(requeue=requeue)
        monkeypatch.setattr(submission, "read_submission", lambda _: SimpleNamespace(load_executor=lambda: executor))
        return worker._Worker(tmp_path, start_note(tmp_path, 0, "7", 1)).run(), requeues

    yield run
    signal.signal(signal.SIGTERM, before)


def test_at_its_time_limit_the_first_process_requeues_the_job_and_no_other_one_ends_it(stopped, tmp_path):
    assert stopped(signal.SIGUSR1, rank=1) == (0, [])
    assert stopped(signal.SIGUSR1, rank=0) == (UNFINISHED, [(signal.SIG_IGN, "requeued")])
    assert read_notes(tmp_path)["7"].state == "requeued"


def test_a_job_that_cannot_be_requeued_is_noted_as_stopped(stopped, tmp_path):
    assert stopped(signal.SIGUSR1, rank=0, is_requeued=False)[0] == UNFINISHED
    assert read_notes(tmp_path)["7"].state == "stopped"
    assert "SIGUSR1" in read_notes(tmp_path)["7"].message


def test_another_signal_ends_it_for_good(stopped):
    assert stopped(signal.SIGTERM, rank=0) == (128 + signal.SIGTERM, [])
    assert stopped(signal.SIGTERM, rank=1) == (128 + signal.SIGTERM, [])


@pytest.mark.parametrize(("process", "code", "requeued"), [(0, 128 + signal.SIGUSR1, ["7"]), (1, 0, [])])
def test_a_time_limit_while_libraries_are_imported(monkeypatch, tmp_path, process, code, requeued):
    jobs = []
    monkeypatch.setenv("SLURM_PROCID", str(process))
    monkeypatch.setattr(slurm_task, "job_name", lambda: "7")
    monkeypatch.setattr(slurm_task.signal, "signal", lambda *_: None)
    monkeypatch.setattr(slurm_task.subprocess, "run", lambda command, **_: jobs.append(command[-1]))
    with pytest.raises(SystemExit) as ended:
        slurm_task.Task(tmp_path, 0, True)._requeue_early(signal.SIGUSR1, None)
    assert (ended.value.code, jobs) == (code, requeued)
