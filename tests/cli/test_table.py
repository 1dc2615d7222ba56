"""`mimbench table`."""

from __future__ import annotations

from helpers.refusals import refused


def test_a_table_of_nothing_says_what_to_do(quick, tmp_path):
    refused(quick("table"), "does not exist", "mimbench run")
    (tmp_path / "runs").mkdir()
    refused(quick("table"), "no records")
