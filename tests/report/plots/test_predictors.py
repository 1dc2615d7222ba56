"""The plot of label-free measures against probes, and its rank correlation."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from helpers import plot_records as made
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.predictors import rank_correlation
from mimbench.report.plots.source import NothingToPlot, Options, Source


def test_the_interval_is_that_of_bonett_and_wright():
    xs, ys = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [2.0, 1.0, 4.0, 3.0, 7.0, 5.0, 6.0]
    result = rank_correlation(xs, ys)
    assert result.rho == pytest.approx(1 - 6 * 10 / (7 * 48))  # the squared differences of ranks add up to 10
    half = stats.norm.ppf(0.975) * math.sqrt((1 + result.rho**2 / 2) / 4)
    assert result.low == pytest.approx(math.tanh(math.atanh(result.rho) - half))
    assert result.high == pytest.approx(math.tanh(math.atanh(result.rho) + half))
    assert result.n == 7


def test_a_perfect_order_of_few_settings_has_a_wide_interval():
    result = rank_correlation([1, 2, 3, 4, 5], [1, 4, 9, 16, 25])
    assert result.rho == result.high == pytest.approx(1)
    assert -0.3 < result.low < -0.1
    assert rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]).rho == pytest.approx(-1)
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None


def measured(record, *, monitors=False, quality=True) -> list:
    """Probes of five methods, and RankMe that orders them backwards."""
    records = []
    for method in made.METHODS:
        for seed in range(2):
            probe = made.one(record, method, seed)
            if monitors:
                points = {"rankme": [(0, 1.0), (26, made.LEVELS[method])]}
                probe = probe.model_copy(
                    update={"checkpoint": probe.checkpoint.model_copy(update={"monitored": points})}
                )
            records.append(probe)
            if quality:
                metrics = {"rankme": 90 - made.LEVELS[method], "lidar": made.LEVELS[method]}
                records.append(made.one(record, method, seed, "feature-quality", metrics=metrics, unit="directions"))
    return records


def titles(record, **kinds) -> dict[str, str]:
    drawn = figure("predictors", Source.from_records(measured(record, **kinds)), Options(width=7))
    return {axes.get_xlabel().replace("\n", " "): axes.get_title(loc="left").replace("\n", " ") for axes in drawn.axes}


def test_each_measure_has_a_panel_with_its_correlation(record):
    shown = titles(record, monitors=True)
    assert set(shown) == {"RankMe, Feature quality", "LiDAR, Feature quality", "monitor rankme"}
    assert shown["LiDAR, Feature quality"].startswith("ρ = 1.00 [")
    assert shown["RankMe, Feature quality"].startswith("ρ = −1.00 [")
    assert shown["monitor rankme"].endswith("n = 5")


def test_without_measures_it_says_how_to_get_them(record):
    with pytest.raises(
        NothingToPlot, match=r"4 or more settings .*mimbench run --method METHOD --task feature-quality"
    ):
        titles(record, quality=False)
