"""`mimbench new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.text import print_text


def kinds(incomplete: str) -> list[str]:
    from mimbench.scaffold import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def new(
    kind: Annotated[str, typer.Argument(help="method, task, dataset or encoder.", autocompletion=kinds)],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="A new or empty folder.", show_default="mimbench-NAME")
    ] = None,
) -> None:
    """Write an installable package with one plugin, its test and a README: a small one that works, to be changed."""
    from mimbench.scaffold import write_package

    paths = write_package(kind, name, output)
    for path in paths:
        print_text(f"written: {path}")
    print_text(f"next: {paths[-1]} shows how to try, install and test it")
