"""Critical differences and win rates against published numbers and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers import plot_records as made
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.rankings import cliques, rank_methods
from mimbench.report.plots.source import NothingToPlot, Source


def test_ranks_and_the_critical_difference_are_those_of_the_paper():
    """Demsar 2006, section 3.2: four methods on 14 sets differ by 1.25 at 0.05; Friedman's test as scipy has it."""
    scores = np.random.default_rng(0).normal(size=(14, 4))
    ranking = rank_methods(scores.tolist(), [True] * 14)
    assert ranking.critical == pytest.approx(1.25, abs=0.005)
    assert ranking.friedman == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert sum(ranking.ranks) == pytest.approx(10)
    assert rank_methods((-scores).tolist(), [False] * 14).ranks == ranking.ranks


def test_a_bar_joins_what_differs_by_less():
    assert cliques([1.0, 1.5, 3.0, 3.2], 0.6) == [(1.0, 1.5), (3.0, 3.2)]
    assert cliques([1.0, 1.4, 1.8], 0.5) == [(1.0, 1.4), (1.4, 1.8)]
    assert cliques([1.0, 2.0, 3.0], 0.5) == []
    assert cliques([1.0, 2.0, 3.0], 5.0) == [(1.0, 3.0)]


def test_win_rates_count_tasks_and_shared_seeds(record):
    values = {"mae": (50, 60), "simmim": (51, 55), "beit": (40, 40)}
    records = [
        made.one(record, method, seed, task, value=float(value))
        for method, pair in values.items()
        for task in ("knn", "linear-probe")
        for seed, value in enumerate(pair)
    ]
    (axes,) = figure("win-rates", Source.from_records(records)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    shown = {(names[int(t.get_position()[1])], names[int(t.get_position()[0])]): t.get_text() for t in axes.texts}
    assert shown["MAE", "SimMIM"] == shown["SimMIM", "MAE"] == "50"  # one seed each
    assert shown["MAE", "BEiT"] == "100"
    assert shown["BEiT", "SimMIM"] == "0"
    assert len(shown) == 6


def test_controls_are_not_ranked(record):
    with pytest.raises(NothingToPlot, match="3 methods or more, without controls"):
        figure("win-rates", Source.from_records(made.scores(record, ["random-init", "mae", "simmim"], seeds=1)))
