"""Tests of the task: it runs, and it passes each check of `mimbench check task`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mimbench.testing import parametrize_checks, task_suite
from mimbench_example.nearest_mean import NearestMean

MODULE = Path(__file__).parents[1] / "mimbench_example" / "nearest_mean.py"
RUN = ["--method", "random-init", "--task", "nearest-mean"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["task"]["name"] == "nearest-mean"
    assert set(record["metrics"]) == {metric.name for metric in NearestMean.metrics}
    # An untrained encoder separates some digits. Chance is about 10 percent.
    assert 15 < record["metrics"]["top1"]["value"] <= 100


@parametrize_checks(task_suite(NearestMean))
def test_it_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
