"""The local executor through the command itself, and what it starts workers with."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mimbench.contract.executor import Workers
from mimbench.errors import InputError, Interrupted
from mimbench.executors import local
from mimbench.executors.local import Local
from mimbench.executors.submission import read_submissions
from mimbench.executors.worker_note import read_notes

SHOW = (
    "import os, sys, time; "
    "print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS'], sys.argv[1], flush=True); "
    "time.sleep(60)"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start workers that print their environment and wait; they are ended after the test."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    workers = Workers("mimbench-test", tmp_path, tmp_path, [sys.executable, "-c", SHOW], "cpu")
    executors = []

    def start_with(**options) -> tuple[Local, list[str], Workers]:
        executor = Local(Local.Config(**options))
        executors.append(executor)
        return executor, executor.submit(workers), workers

    yield start_with
    for executor in executors:
        subprocess.run(executor.cancel_command(workers), shell=True, check=True)


def lines_of(executor, workers, jobs) -> list[str]:
    end = time.monotonic() + 20
    while True:
        lines = [executor.log(workers, job).read_text().strip() for job in jobs]
        if all(lines):
            return lines
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_on_the_cpu_share_its_cores(start, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert lines_of(*(started := start(jobs=2))[::2], started[1]) == ["None 3 0", "None 3 1"]


def test_threads_can_be_chosen(start):
    executor, jobs, workers = start(jobs=1, threads=5)
    assert lines_of(executor, workers, jobs) == ["None 5 0"]


def test_each_worker_gets_one_gpu(start, monkeypatch):
    monkeypatch.setattr(local, "_gpus", lambda device: ["4", "6"])
    executor, jobs, workers = start(threads=1)
    assert lines_of(executor, workers, jobs) == ["4 1 0", "6 1 1"]
    with pytest.raises(InputError, match="there are 2 GPUs here"):
        Local(Local.Config(jobs=3)).check("auto")


def test_jobs_are_those_that_run(start):
    executor, jobs, workers = start(jobs=2, threads=1)
    running = executor.jobs(workers)
    assert list(running) == jobs == ["worker-0", "worker-1"]
    pid = int(running["worker-0"].rpartition(" ")[2])
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while list(executor.jobs(workers)) != ["worker-1"]:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.e2e
def test_workers_go_on_after_the_command_and_the_same_command_follows_them(tmp_path, quick):
    run = ["run", "--method", "random-init,simmim", "--task", "knn", "--recipe", "smoke", "--results", "by-workers"]
    by_workers = [*run, "--executor", "local", "--jobs", "2"]
    results = tmp_path / "by-workers"
    with (tmp_path / "first.log").open("w") as log:
        # A background job of a shell ignores SIGINT, and so would what it starts.
        listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        command = [sys.executable, "-m", "mimbench", *by_workers]
        first = subprocess.Popen(command, cwd=tmp_path, stderr=log, stdout=log, preexec_fn=listen)
    end = time.monotonic() + 120
    while "to end them" not in (tmp_path / "first.log").read_text():
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130
    last = (tmp_path / "first.log").read_text().splitlines()[-1]
    assert last.startswith("mimbench: stopped by SIGINT; the workers go on, and `kill ")
    done = quick(*by_workers)
    assert done.returncode == 0, done.stderr
    assert "following 2 workers" in done.stderr
    assert "2 cells: " in done.stderr
    (submission,) = read_submissions(results)
    commands = {json.loads(path.read_text())["provenance"]["command"] for path in (results / "records").glob("*.json")}
    assert commands == {f"mimbench {' '.join(by_workers)}"}
    again = quick(*by_workers)
    assert again.returncode == 0
    assert "no worker is started" in again.stderr
    assert read_submissions(results) == [submission]
    assert set(read_notes(submission.folder)) == {"worker-0", "worker-1"}


def test_a_command_that_is_stopped_while_it_submits_leaves_what_workers_need(tmp_path, quick, monkeypatch):
    submit = Local.submit

    def stop(self, workers):
        submit(self, workers)
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(Local, "submit", stop)
    run = ["run", "--method", "random-init", "--task", "knn", "--recipe", "smoke", "--executor", "local"]
    done = quick(*run, "--results", "by-workers")
    assert done.returncode == 130
    (submission,) = read_submissions(tmp_path / "by-workers")
    assert "the same command follows them, and `kill " in done.stderr
    executor = submission.load_executor()
    assert len(executor.jobs(submission.workers())) == 1
    subprocess.run(executor.cancel_command(submission.workers()), shell=True, check=True)


KILLED = '''
import os, signal
from mimbench_methods.simmim import SimMIM
class Killed(SimMIM):
    """Its worker is killed at the first step."""
    name = "killed"
    def step(self, batch, generator):
        os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.mark.e2e
def test_cells_of_a_killed_worker_are_listed_as_not_run(tmp_path, quick):
    (tmp_path / "killed.py").write_text(KILLED)
    run = ["run", "--plugin", "killed.py", "--method", "killed", "--task", "knn,few-shot", "--recipe", "smoke"]
    done = quick(*run, "--set", "method.mask_patch_size=4", "--executor", "local", "--jobs", "1")
    assert done.returncode == 1
    assert "2 cells: 0 new, 0 already recorded, 0 failed, 2 not run" in done.stderr
    assert (
        "not run: knn of killed seed 0, few-shot of killed seed 0: no worker is left (worker-0 ended on" in done.stderr
    )
    assert "ended      pretraining killed seed 0" in quick("status").stdout
