"""The SLURM executor: on a real cluster of one node, which tests/executors/slurm.sh starts on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.refusals import refused
from mimbench.contract.validation import validate
from mimbench.errors import InputError
from mimbench.executors.slurm import Slurm, minutes_of
from mimbench.executors.submission import read_submissions
from mimbench.executors.worker_note import WorkerNote, read_notes

HERE = Path(__file__).parent
METHODS = ("slow-simmim", "slow-mae")
RUN = [
    *("run", "--plugin", str(HERE / "slow_methods.py"), "--method", ",".join(METHODS), "--task", "knn,few-shot"),
    *("--recipe", "smoke", "--device", "cpu", "--set", "pretrain.epochs=10", "--set", "pretrain.batch_size=20"),
    *("--set", "methods.slow-simmim.method.mask_patch_size=4"),
    *("--set", "methods.slow-mae.method.decoder_dim=32", "--set", "methods.slow-mae.method.decoder_depth=1"),
]
BY_SLURM = [*RUN, "--results", "shared", "--executor", "slurm", "--jobs", "2", "--set", "executor.signal_seconds=5"]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """SLURM_CONF of a running cluster."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and {', '.join(PROGRAMS)} (`make tools` installs them as root)")
    folder = tmp_path_factory.mktemp("slurm")
    script = [str(HERE / "slurm.sh")]
    try:
        subprocess.run([*script, "start", str(folder), str(os.getpid())], check=True, timeout=60)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
    finally:
        subprocess.run([*script, "stop", str(folder)], check=True, timeout=60)


@pytest.fixture
def released(tmp_path, monkeypatch) -> Path:
    """The file that lets the slow methods go."""
    path = tmp_path / "released"
    monkeypatch.setenv("RELEASED", str(path))
    return path


def wait_for(what: str, is_reached: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_reached():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    with (folder / "submit.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "mimbench", *arguments], cwd=folder, stdout=log, stderr=log)


def notes_of(results: Path) -> dict[str, WorkerNote]:
    submissions = read_submissions(results)
    return read_notes(submissions[0].folder) if submissions else {}


def scores(results: Path) -> dict[str, dict]:
    """The records without what differs between two runs: costs, provenance and the hash of the whole.

    The hash of the weights and all metrics remain.
    """
    records = {}
    for path in (results / "records").glob("*.json"):
        body = json.loads(path.read_text())
        del body["checkpoint"]["cost"]
        records[path.stem] = {key: value for key, value in body.items() if key not in ("cost", "provenance", "sha256")}
    return records


def test_a_grid_survives_the_submitters_death_a_requeue_and_a_time_limit(slurm, released, tmp_path, quick):
    results = tmp_path / "shared"
    first = start(tmp_path, *BY_SLURM)

    def are_training() -> bool:
        assert first.poll() is None, (tmp_path / "submit.log").read_text()
        steps = [tmp_path / f"{method}.steps" for method in METHODS]
        return all(path.exists() and len(path.read_text().splitlines()) >= 2 for path in steps)

    wait_for("both workers train", are_training)
    shown = json.loads(quick("status", "--results", str(results), "--json").stdout)
    assert shown["counts"] == {"recorded": 0, "failed": 0, "running": 4, "left": 0}
    jobs = sorted(notes_of(results))
    assert sorted(lease["job"] for lease in shown["running"]) == jobs

    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run(["scontrol", "requeue", jobs[0]], check=True)
    subprocess.run(["scontrol", "update", f"jobid={jobs[1]}", "timelimit=1"], check=True)
    second = start(tmp_path, *BY_SLURM)
    wait_for("the second job was stopped by its time limit", lambda: notes_of(results)[jobs[1]].state == "requeued")
    assert "SIGUSR1" in notes_of(results)[jobs[1]].message
    subprocess.run(["scontrol", "update", f"jobid={jobs[1]}", "timelimit=30"], check=True)
    # Released earlier, the first job could run all cells before the second one has started again.
    wait_for("both jobs work again", lambda: [notes_of(results)[job].starts for job in jobs] == [2, 2])
    released.touch()
    local = quick(*RUN, "--results", "local")
    assert local.returncode == 0, local.stderr
    second.wait(timeout=120)
    log = (tmp_path / "submit.log").read_text()
    assert second.returncode == 0, log
    assert "following 2 workers" in log
    assert log.count("submitted:") == 1
    assert len(scores(results)) == 4
    assert scores(results) == scores(tmp_path / "local")


def test_a_worker_of_two_gpus_is_one_run_of_two_processes_and_goes_back_into_the_queue(slurm, released, tmp_path):
    results, steps = tmp_path / "shared", tmp_path / "slow-simmim.steps"
    two = ["--method", "slow-simmim", "--jobs", "1", "--set", "executor.gpus_per_node=2"]
    command = start(tmp_path, *BY_SLURM, *two)
    wait_for("the worker trains", steps.exists)
    (job,) = notes_of(results)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_for("its job is in the queue again", lambda: notes_of(results)[job].state == "requeued", seconds=30)
    released.touch()
    command.wait(timeout=120)
    assert command.returncode == 0, (tmp_path / "submit.log").read_text()
    assert notes_of(results)[job].starts == 2
    records = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    assert [record["provenance"]["processes"] for record in records] == [2, 2]


def test_what_slurm_refuses_is_one_line(slurm, tmp_path, quick):
    run = ["run", "--method", "random-init", "--task", "knn", "--recipe", "smoke", "--executor", "slurm"]
    refused(quick(*run, "--set", "executor.partition=nope"), "invalid partition specified: nope")
    assert not list((tmp_path / "runs" / "jobs").glob("*"))


def test_a_worker_that_cannot_start_is_one_line(slurm, tmp_path, quick):
    run = ["run", "--method", "random-init", "--task", "knn", "--recipe", "smoke", "--executor", "slurm"]
    done = quick(*run, "--set", "executor.python=/no/python")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not run: ")]
    assert "did not start" in line
    assert "/no/python" in line


def test_without_slurm_it_says_where_to_run_it(quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = quick("run", "--method", "mae", "--task", "knn", "--recipe", "smoke", "--executor", "slurm")
    refused(done, "there is no sbatch on this machine", "--executor local")


@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("1:30:00", 90), ("5:01", 6), ("2-12", 3600), ("1-00:00:30", 1441)]
)
def test_time_limits_are_read_as_sbatch_does(text, minutes):
    assert minutes_of(text) == minutes


def test_options_are_those_of_sbatch():
    config = validate(
        Slurm.Config,
        {"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "2-00:00:00", "requeue": False, "cpus": 12},
        "executor",
    )
    executor = Slurm(config)
    parameters = executor._parameters(_workers())
    assert parameters["time"] == 2880
    assert (parameters["nodes"], parameters["ntasks_per_node"], parameters["cpus_per_task"]) == (4, 8, 12)
    assert parameters["additional_parameters"] == {"signal": "USR1@120", "no-requeue": True, "gpus-per-node": 8}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"partitoin": "gpu"}, "unknown key 'executor.partitoin'; did you mean 'partition'"),
        ({"time": "soon"}, "no time limit"),
        ({"memory": "many"}, "executor.memory = 'many'"),
        ({"memory": "64 GB"}, "executor.memory = '64 GB'"),
        ({"nodes": 0}, "executor.nodes = 0"),
    ],
)
def test_wrong_options_are_refused(options, problem):
    with pytest.raises(InputError, match="executor") as error:
        validate(Slurm.Config, options, "executor")
    assert problem in str(error.value)


def _workers():
    from mimbench.contract.executor import Workers

    return Workers("mimbench-x", Path("/x"), Path("/y"), ["python"], "auto")
