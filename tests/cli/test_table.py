"""`mimbench table`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bare", "--caption", "x"], "--caption, --bare: for LaTeX only; add --format latex"),
        (["--reference", "a}b", "--format", "latex"], "--reference 'a}b': use letters, digits and :./- only"),
        (["--label", "simmim"], "--label 'simmim' is not METHOD=LABEL, as in simmim=Ours"),
    ],
)
def test_options_that_cannot_be_used(quick, arguments, message):
    refused(quick("table", "--results", str(REFERENCE), *arguments), message)


def test_a_label_of_no_method_is_refused(quick):
    command = ("table", "--results", str(REFERENCE), "--label", "simmin=Ours")
    refused(quick(*command), "no record has a method 'simmin'; did you mean 'simmim'")
    command = ("plot", "seeds", "--results", str(REFERENCE), "--label", "simmin=Ours")
    refused(quick(*command), "no record has a method 'simmin'; did you mean 'simmim'")


def test_a_method_gets_another_label(quick):
    done = quick("table", "--results", str(REFERENCE), "--task", "knn", "--label", "mae=Ours")
    assert done.returncode == 0, done.stderr
    assert "\nOurs " in done.stdout
    assert "\nMAE " not in done.stdout
