"""Tests of the method of two views: it runs, and it passes each check of `mimbench check method`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mimbench.testing import method_suite, parametrize_checks
from mimbench_example.agree import Agree

MODULE = Path(__file__).parents[1] / "mimbench_example" / "agree.py"
RUN = ["--method", "agree", "--task", "knn"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["method"]["name"] == "agree"


@parametrize_checks(method_suite(Agree))
def test_it_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
