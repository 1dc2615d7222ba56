"""Label efficiency: one point per number of labels per class."""

from __future__ import annotations

import pytest

from helpers import plot_records as made
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import Source


def test_shots_and_shares_are_at_their_labels_per_class(record):
    metrics = {"top1_5shot": 50.0, "top1_1shot": 30.0, "top1_10percent": 70.0, "top1_1percent": 45.0}
    labels = {"5shot": 50, "1shot": 10, "10percent": 400, "1percent": 40}
    one = made.one(record, "mae", 0, "few-shot", metrics=metrics, details={"labels": labels})
    (axes,) = figure("label-efficiency", Source.from_records([one])).axes
    (line,) = [line for line in axes.lines if line.get_label() == "MAE"]
    assert list(line.get_xdata()) == pytest.approx([1.0, 4.0, 5.0, 40.0])  # ten classes
    assert list(line.get_ydata()) == [30.0, 45.0, 50.0, 70.0]


def test_a_share_of_an_unknown_number_of_labels_is_left_out(record):
    metrics = {"top1_5shot": 50.0, "top1_1shot": 30.0, "top1_10percent": 70.0}
    one = made.one(record, "mae", 0, "few-shot", metrics=metrics)
    (axes,) = figure("label-efficiency", Source.from_records([one])).axes
    (line,) = [line for line in axes.lines if line.get_label() == "MAE"]
    assert list(line.get_xdata()) == [1.0, 5.0]
