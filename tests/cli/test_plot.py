"""`mimbench plot`."""

from __future__ import annotations

from helpers.refusals import refused
from mimbench.report.plots.kinds import ALL, plot_kinds


def test_without_a_kind_the_kinds_are_listed(quick):
    done = quick("plot")
    assert (done.returncode, done.stdout.split()) == (0, [*plot_kinds(), ALL])


def test_an_unknown_kind_is_refused_before_the_folder(quick):
    refused(quick("plot", "bar", "--results", "nowhere"), "unknown kind of plot 'bar'", "'bars'")
    refused(quick("plot", "bars", "--results", "nowhere"), "nowhere does not exist")
