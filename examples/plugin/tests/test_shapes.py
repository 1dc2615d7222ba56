"""Tests of the dataset: it runs, and it passes each check of `mimbench check dataset`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mimbench.testing import dataset_suite, parametrize_checks
from mimbench_example.shapes import Shapes

MODULE = Path(__file__).parents[1] / "mimbench_example" / "shapes.py"
RUN = ["--method", "random-init", "--task", "knn", "--set", "data.name=shapes"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["dataset"]["name"] == "shapes"


@parametrize_checks(dataset_suite(Shapes))
def test_it_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
