"""`mimbench table`."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.refusals import refused

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def test_a_table_of_nothing_says_what_to_do(quick, tmp_path):
    refused(quick("table"), "does not exist", "mimbench run")
    (tmp_path / "runs").mkdir()
    refused(quick("table"), "no records")


def test_all_metrics_are_a_choice(quick):
    record = next((REFERENCE / "records").glob("mae-detection-s0-*.json"))
    metrics = json.loads(record.read_text())["metrics"]
    done = quick("table", "--results", str(REFERENCE), "--task", "detection", "--metric", "all", "--format", "csv")
    assert done.returncode == 0, done.stderr
    header = done.stdout.splitlines()[0]
    assert all(f"detection: {name} " in header for name in metrics), header
