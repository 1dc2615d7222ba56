"""A heat map has the mean of each pair of values."""

from __future__ import annotations

import pytest

from helpers import plot_records as made
from mimbench.errors import InputError
from mimbench.report.plots.kinds import figure
from mimbench.report.plots.source import Options, Source


def varied_records(record, paths=("method.mask_ratio", "method.mask_patch_size")):
    return [
        made.one(record, "simmim", seed, value=100 * a + b + seed, varied={paths[0]: a, paths[1]: b})
        for a in (0.2, 0.4, 0.6)
        for b in (4, 8)
        for seed in (0, 1)
    ]


def test_each_cell_is_the_mean_of_its_pair(record):
    (axes,) = figure("heatmap", Source.from_records(varied_records(record))).axes
    assert axes.images[0].get_array().tolist() == [[24.5, 44.5, 64.5], [28.5, 48.5, 68.5]]
    assert axes.get_xlabel() == "Mask ratio"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "8"]


def test_one_setting_is_no_pair(record):
    source = Source.from_records(varied_records(record))
    with pytest.raises(InputError, match="heatmap takes two settings, as PATH,PATH"):
        figure("heatmap", source, Options(over="method.mask_ratio"))
