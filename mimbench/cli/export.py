"""`mimbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import ResultsOption
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def export(
    checkpoint: Annotated[str, typer.Argument(help="Fingerprint or folder of a checkpoint.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write: NAME.safetensors.")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write a checkpoint's encoder as a safetensors file under timm's names."""
    from mimbench.harness.exchange import export_checkpoint

    exported = export_checkpoint(checkpoint, output, results=results)
    print_text(f"{output}: {exported.tensors} tensors of {exported.encoder}, pretrained with {exported.method}")
