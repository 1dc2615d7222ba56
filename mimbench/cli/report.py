"""`mimbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import ResultsOption
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def report(
    results: ResultsOption = DEFAULT_RESULTS,
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the page: a new one, or one with an earlier report.")
    ] = Path("report"),
) -> None:
    """Write one self-contained page: leaderboard, runs, comparisons, ablations, published numbers, downloads."""
    from mimbench.report.page.build import write_page

    print_text(f"written: {write_page(results, output)}")
