"""`mimbench parity`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimbench.cli.options import PluginOption
from mimbench.errors import MimbenchError
from mimbench.text import list_first, print_line, print_text

if TYPE_CHECKING:
    from mimbench.parity.comparison import Comparison, Row


def parity(
    files: Annotated[list[Path], typer.Argument(help="Golden vectors (.npz) of official implementations.")],
    plugin: PluginOption = None,
) -> None:
    """Compare loss, outputs and gradients with golden vectors. Exit code 1: some differ by more than the tolerance."""
    raise typer.Exit(compare_files(files))


def compare_files(files: Sequence[Path]) -> int:
    """Print one table per file.

    Returns:
        The exit code: 0 if all numbers are within tolerance, 1 if some are not, 2 if a file cannot be used.
    """
    from mimbench.parity.comparison import compare
    from mimbench.parity.golden import read_golden

    codes = [0]
    for file in files:
        try:
            result = compare(read_golden(file))
        except MimbenchError as error:
            print_line(f"mimbench: {error}", error=True)
            codes.append(error.exit_code)
            continue
        failed = sum(not row.passed for row in result.rows)
        verdict = f"FAILED: {failed} of {len(result.rows)} numbers are beyond tolerance" if failed else "passed"
        print_text("\n".join([f"{file}: {verdict}", *_lines(result.rows), *_skipped_lines(result)]))
        codes.append(1 if failed else 0)
    return max(codes)


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    width = max(len(row.quantity) for row in rows)
    for row in rows:
        verdict = "passed" if row.passed else "FAILED"
        yield f"  {verdict}  {row.quantity:<{width}}  {row.error:.1e}  (allowed: {row.allowed})"


def _skipped_lines(result: Comparison) -> Iterator[str]:
    reasons = result.skipped.values()
    for reason in dict.fromkeys(reasons):
        names = [name for name, why in result.skipped.items() if why == reason]
        yield f"  not compared: {list_first(names)}" + (f" ({reason})" if reason else "")
