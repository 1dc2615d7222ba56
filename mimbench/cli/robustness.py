"""`mimbench robustness`."""

from __future__ import annotations

from typing import Annotated

import typer

from mimbench.cli.options import ResultsOption
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def robustness(
    results: ResultsOption = DEFAULT_RESULTS,
    baseline: Annotated[
        str, typer.Option("--baseline", help="The method whose corruption errors count as 100.")
    ] = "random-init",
    format_: Annotated[str, typer.Option("--format", help="text, markdown, csv, html or latex.")] = "text",
) -> None:
    """Print the mean corruption error (mCE) of robustness records, normalised by a baseline, and each corruption's."""
    from mimbench.report.tables.render import render
    from mimbench.report.tables.robustness import build_corruption_table
    from mimbench.store.record import read_records

    print_text(render(build_corruption_table(read_records(results), baseline), format_), end="")
