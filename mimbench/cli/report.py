"""`mimbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import ResultsOption, flag
from mimbench.errors import InputError
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def report(
    results: ResultsOption = DEFAULT_RESULTS,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder of the page: a new one, or one with an earlier report. [default: report]"
        ),
    ] = None,
    watch: Annotated[
        bool, flag("--watch", "Show the page and runs in progress in a browser on this machine, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", help="Of --watch. Default: a free one.", min=1, max=65535)
    ] = None,
) -> None:
    """Write one self-contained page: leaderboard, runs, comparisons, ablations, published numbers, downloads.

    With --watch nothing is written: the page is served on 127.0.0.1, at an address that nobody else knows, shows runs
    in progress with their losses, and updates by itself.
    """
    if not watch:
        if port is not None:
            raise InputError("--port is for --watch; add --watch")
        from mimbench.report.page.build import write_page

        print_text(f"written: {write_page(results, output or Path('report'))}")
        return
    if output is not None:
        raise InputError("--output with --watch: nothing is written then; leave one of the two out")
    from mimbench.report.page.watch import serve

    serve(results, port or 0)
