"""`mimbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def verify(
    results: Annotated[
        Path, typer.Argument(help="A results folder, or a folder that contains several.")
    ] = DEFAULT_RESULTS,
) -> None:
    """Check records, checkpoints, artifacts and all other files against their hashes. Exit code 1: some are damaged."""
    from mimbench.store.verify import verify as verify_folder

    result = verify_folder(results)
    print_text("\n".join(result.lines()))
    raise typer.Exit(1 if result.damage else 0)
