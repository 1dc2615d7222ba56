"""Where the commands that make a table put it."""

from __future__ import annotations

from pathlib import Path

from mimbench.files import writing
from mimbench.text import print_text


def print_table(text: str, output: Path | None) -> None:
    """Print a table, or write it to the file of --output and make its folder.

    Raises:
        InputError: the file cannot be written.
    """
    if output is None:
        print_text(text, end="")
        return
    with writing(f"--output {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    print_text(f"written: {output}")
