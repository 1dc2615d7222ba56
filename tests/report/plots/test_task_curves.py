"""Curves that display files declare: the values of the records, their axes, and the line of chance."""

from __future__ import annotations

import pytest

from helpers import plot_records as made
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import NothingToPlot, Source

RATES = [0.001, 0.01, 0.1, 1.0]
CURVES = {
    "false_positive_rate": RATES,
    "true_positive_rate": [0.0, 0.2, 0.5, 1.0],
    "copies": [1, 4, 16],
    "exposure": [1.5, 4.0, 8.0],
}


def attacked(record, seed, curves):
    return made.one(record, "mae", seed, "privacy", metric="auc", value=70.0, curves=curves)


def drawn(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]


def test_a_roc_curve_is_the_mean_over_seeds_on_logarithmic_axes(record):
    better = {**CURVES, "true_positive_rate": [0.2, 0.4, 0.7, 1.0]}
    source = Source.from_records([attacked(record, 0, CURVES), attacked(record, 1, better)])
    (axes,) = figure("roc", source).axes
    xs, ys = drawn(axes, "MAE")
    assert xs == RATES
    assert ys == pytest.approx([0.1, 0.3, 0.6, 1.0])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert any(list(line.get_xdata()) == list(line.get_ydata()) == [0.001, 1.0] for line in axes.lines), "chance"


def test_few_points_have_a_tick_each(record):
    (axes,) = figure("exposure", Source.from_records([attacked(record, 0, CURVES)])).axes
    assert drawn(axes, "MAE") == ([1, 4, 16], [1.5, 4.0, 8.0])
    assert sorted(axes.get_xticks()) == [1, 4, 16]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_records_without_the_curve_are_left_out(record):
    only_roc = {name: CURVES[name] for name in ("false_positive_rate", "true_positive_rate")}
    with pytest.raises(NothingToPlot, match="nothing to plot as exposure: needs records of privacy with this curve"):
        figure("exposure", Source.from_records([attacked(record, 0, only_roc)]))
