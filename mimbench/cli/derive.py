"""`mimbench derive`."""

from __future__ import annotations

from typing import Annotated

import typer

from mimbench.cli.options import OutputOption, ResultsOption, TableFormatOption
from mimbench.cli.output import print_table
from mimbench.errors import InputError
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def derived_names(incomplete: str) -> list[str]:
    from mimbench.report.tables.relative_errors import derived_tables

    return [name for name in derived_tables() if name.startswith(incomplete)]


def derive(
    name: Annotated[
        str, typer.Argument(help="A table that a task declares; `list` prints all.", autocompletion=derived_names)
    ],
    results: ResultsOption = DEFAULT_RESULTS,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="The method whose errors count as 100.", show_default="as the table declares"),
    ] = None,
    format_: TableFormatOption = None,
    output: OutputOption = None,
) -> None:
    """Print a table that is derived from one task's records, such as the mean corruption error (mce)."""
    from mimbench.report.tables.command import choose_format
    from mimbench.report.tables.relative_errors import build_derived_table, derived_tables, find_derived_table
    from mimbench.report.tables.render import render
    from mimbench.store.record import read_records

    if name == "list":
        for table in derived_tables().values():
            print_text(f"{table.name:<24}{table.display.title} of {table.task}: {table.display.source}")
        return
    format_ = choose_format(format_, output)
    table = find_derived_table(name)
    method = baseline or table.display.baseline
    if not method:
        raise InputError(f"derived table {name!r} needs a method to compare with: --baseline METHOD")
    print_table(render(build_derived_table(table, read_records(results), method), format_), output)
