"""Mean corruption errors, by hand."""

from __future__ import annotations

import pytest

from mimbench.errors import InputError
from mimbench.report.robustness import corruption_errors


@pytest.fixture
def measured(record):
    def make(clean, fog, snow, **changes):
        curves = {"severity": [1, 2], "top1": [0, 0], "top1, fog": fog, "top1, snow": snow}
        metrics = {"top1_corrupted": 1.0, "top1_clean": clean}
        return record(**{"task": "robustness", "metrics": metrics, "curves": curves} | changes)

    return make


def test_errors_are_summed_over_severities_and_averaged_over_corruptions(measured):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(80.0, [70.0, 50.0], [60.0, 40.0])
    found = corruption_errors(ours, base)
    # fog: (20 + 40) / (30 + 50); snow: (30 + 50) / (40 + 60)
    assert found.by_corruption == {"fog": pytest.approx(75), "snow": pytest.approx(80)}
    assert found.mce == pytest.approx(77.5)
    # above the clean errors of 10 and 20: fog (10 + 30) / (10 + 30); snow (20 + 40) / (20 + 40)
    assert found.relative_mce == pytest.approx(100)
    itself = corruption_errors(base, base)
    assert (itself.mce, itself.relative_mce) == (pytest.approx(100), pytest.approx(100))


def test_where_the_baseline_loses_nothing_there_is_no_relative_error(measured):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(50.0, [50.0, 50.0], [60.0, 40.0])
    assert corruption_errors(ours, base).relative_mce is None


def test_what_does_not_compare_is_refused(measured, record):
    ours, base = measured(90.0, [80.0, 60.0], [70.0, 50.0]), measured(80.0, [70.0, 50.0], [60.0, 40.0])
    with pytest.raises(InputError, match="is of task 'knn'"):
        corruption_errors(ours, record(task="knn"))
    with pytest.raises(InputError, match="differ in protocol"):
        corruption_errors(ours, measured(80.0, [70.0, 50.0], [60.0, 40.0], protocol={"layer": 0}))
    with pytest.raises(InputError, match="differ in dataset"):
        corruption_errors(ours, base.model_copy(update={"dataset": base.dataset.model_copy(update={"version": "g"})}))
    with pytest.raises(InputError, match="makes no error under snow"):
        corruption_errors(ours, measured(80.0, [70.0, 50.0], [100.0, 100.0]))
