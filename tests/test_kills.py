"""A run that is killed at any moment goes on with the same command, to the same results and without litter.

`make soak` tries many more moments, stops, full disks and 300 cells.
"""

from __future__ import annotations

import random
import signal
import time

import pytest

from helpers.faults import Command, differences, run, state_of

RUN = [
    *("run", "--method", "simmim", "--task", "finetune,knn", "--recipe", "smoke"),
    *("--set", "datasets.mnist5k.train_limit=64", "--set", "datasets.mnist5k.test_limit=32"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run that nobody disturbs: its results, how many operations on files it made, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    environment = {"MIMBENCH_CACHE": str(cache)}
    run(RUN, folder / "first", folder / "log", **environment)  # fills the cache
    started = time.monotonic()
    command = run(RUN, folder / "runs", folder / "log", **environment)
    return state_of(folder / "runs"), command.operations, time.monotonic() - started


def goes_on(tmp_path, expected):
    """The same command, and nothing shows that it was killed before."""
    run(RUN, tmp_path / "runs", tmp_path / "log")
    assert differences(expected, tmp_path / "runs") == []


@pytest.mark.parametrize("share", [number / 8 for number in range(8)])
def test_killed_before_an_operation_on_files(whole, tmp_path, share):
    expected, operations, _ = whole
    killed = Command(RUN, tmp_path / "runs", tmp_path / "log", kill_at=1 + int(share * operations))
    assert killed.wait() == -signal.SIGKILL, killed.log.read_text()
    goes_on(tmp_path, expected)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(whole, tmp_path, seed):
    expected, _, seconds = whole
    killed = Command(RUN, tmp_path / "runs", tmp_path / "log")
    killed.wait(random.Random(seed).uniform(0.1, 1) * seconds)
    killed.kill()
    goes_on(tmp_path, expected)
