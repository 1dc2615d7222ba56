"""Tests of the encoder: it runs, and it passes each check of `mimbench check encoder`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mimbench.testing import encoder_suite, parametrize_checks
from mimbench_example.plain_cnn import PlainCNN

MODULE = Path(__file__).parents[1] / "mimbench_example" / "plain_cnn.py"
RUN = ["--method", "simmim", "--task", "knn", "--set", "encoder.name=plain-cnn"]


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mimbench", "run", "--plugin", str(MODULE), *RUN, "--recipe", "smoke", "--json"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["recipe"]["encoder"]["name"] == "plain-cnn"


@parametrize_checks(encoder_suite(PlainCNN))
def test_it_keeps_the_contract(check: Callable[[], None]) -> None:
    check()
