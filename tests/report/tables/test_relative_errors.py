"""Errors relative to a baseline: mean corruption errors, by hand."""

from __future__ import annotations

import pytest

from helpers.refusals import refused
from mimbench.errors import InputError
from mimbench.report.tables.relative_errors import build_derived_table, compute_error_ratios, find_derived_table
from mimbench.report.tables.render import render
from mimbench.report.tables.render.numbers import cell_text
from mimbench.store.record import write_record

MCE = find_derived_table("mce")


@pytest.fixture
def measured(record):
    def make(clean, fog, snow, **changes):
        curves = {"severity": [1, 2], "top1": [0, 0], "top1, fog": fog, "top1, snow": snow}
        metrics = {"top1_corrupted": 1.0, "top1_clean": clean}
        return record(**{"task": "robustness", "metrics": metrics, "curves": curves} | changes)

    return make


def test_errors_are_summed_over_severities_and_averaged_over_corruptions(measured):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(80.0, [70.0, 50.0], [60.0, 40.0])
    ratios = compute_error_ratios(MCE, ours, base)
    # fog: (20 + 40) / (30 + 50); snow: (30 + 50) / (40 + 60)
    assert ratios.by_condition == {"fog": pytest.approx(75), "snow": pytest.approx(80)}
    assert ratios.mean == pytest.approx(77.5)
    # above the clean errors of 10 and 20: fog (10 + 30) / (10 + 30); snow (20 + 40) / (20 + 40)
    assert ratios.mean_above_clean == pytest.approx(100)
    itself = compute_error_ratios(MCE, base, base)
    assert (itself.mean, itself.mean_above_clean) == (pytest.approx(100), pytest.approx(100))


def test_without_a_loss_of_the_baseline_there_is_no_relative_error(measured):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(50.0, [50.0, 50.0], [60.0, 40.0])
    assert compute_error_ratios(MCE, ours, base).mean_above_clean is None


def test_what_does_not_compare_is_refused(measured, record):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(80.0, [70.0, 50.0], [60.0, 40.0])
    with pytest.raises(InputError, match="is of task 'knn'"):
        compute_error_ratios(MCE, ours, record(task="knn"))
    with pytest.raises(InputError, match="differ in protocol"):
        compute_error_ratios(MCE, ours, measured(80.0, [70.0, 50.0], [60.0, 40.0], protocol={"layer": 0}))
    with pytest.raises(InputError, match="differ in dataset"):
        compute_error_ratios(
            MCE, ours, base.model_copy(update={"dataset": base.dataset.model_copy(update={"version": "g"})})
        )
    with pytest.raises(InputError, match="makes no error under snow"):
        compute_error_ratios(MCE, ours, measured(80.0, [70.0, 50.0], [100.0, 100.0]))


def test_the_table_pairs_by_seed_and_has_every_term(measured):
    base = [measured(80.0, [70.0, 50.0], [60.0, 40.0], method="random-init", seed=seed) for seed in (0, 1)]
    ours = [measured(90.0, [80.0, 60.0], [70.0, 50.0], method="mae", seed=0)]
    ours.append(measured(90.0, [85.0, 55.0], [70.0, 50.0], method="mae", seed=1))
    table = build_derived_table(MCE, [*base, *ours], "random-init")
    assert [column.title for column in table.columns] == ["method", "mCE", "relative mCE", "fog", "snow"]
    assert [[cell_text(cell) for cell in row] for row in table.rows] == [
        ["mae", "77.5 ± 0.0 (n=2)", "100.0 ± 0.0 (n=2)", "75.0 ± 0.0 (n=2)", "80.0 ± 0.0 (n=2)"],
        ["random-init", *["100.0 ± 0.0 (n=2)"] * 4],
    ]
    assert table.rows[0][1].mark == "best"
    assert "less is better" in render(table, "markdown")


def test_a_table_without_its_baseline_or_of_two_protocols_is_refused(measured, record):
    ours = measured(90.0, [80.0, 60.0], [70.0, 50.0], method="mae")
    with pytest.raises(InputError, match="no robustness record of baseline 'random-init'"):
        build_derived_table(MCE, [ours], "random-init")
    with pytest.raises(InputError, match="no records of the task robustness"):
        build_derived_table(MCE, [record()], "mae")
    with pytest.raises(InputError, match="two records of seed 0"):
        build_derived_table(MCE, [ours, ours], "mae")
    other = measured(90.0, [80.0, 60.0], [70.0, 50.0], method="mae", protocol={"task": "robustness", "other": 1})
    with pytest.raises(InputError, match="several protocols"):
        build_derived_table(MCE, [ours, other], "mae")


def test_derived_tables_are_declared_by_tasks():
    assert (MCE.task, MCE.display.title, MCE.display.baseline) == ("robustness", "mCE", "random-init")
    with pytest.raises(InputError, match="unknown derived table 'mcee'; did you mean 'mce'"):
        find_derived_table("mcee")


def test_derive_writes_a_file_in_the_format_of_its_suffix(measured, quick, tmp_path):
    for method, fog in (("simmim", [80.0, 60.0]), ("random-init", [70.0, 50.0])):
        made = measured(90.0, fog, [60.0, 40.0], method=method)
        write_record(tmp_path / "runs" / "records" / f"{made.id}.json", made)
    command = ("derive", "mce", "--baseline", "random-init")
    printed = quick(*command, "--format", "csv")
    assert printed.returncode == 0, printed.stderr
    output = tmp_path / "new" / "mce.csv"
    assert quick(*command, "--output", str(output)).stdout == f"written: {output}\n"
    assert output.read_text(encoding="utf-8") == printed.stdout
    refused(quick(*command, "--output", "mce.doc"), "mce.doc", "--format")
