"""`mimbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import ResultsOption
from mimbench.errors import InputError
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def export(
    checkpoint: Annotated[str, typer.Argument(help="Fingerprint or folder of a checkpoint.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The file to write: NAME.safetensors.", show_default=False)
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="OWNER/NAME",
            help="Upload weights, timm's configuration and a model card to this repository of the Hugging Face hub. A "
            "repository that is not there is made.",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public, not private.")] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write a checkpoint's encoder under timm's names: a safetensors file, or a repository of the hub."""
    from mimbench.harness.exchange import export_checkpoint
    from mimbench.harness.hub import push_checkpoint

    if output is None and push is None:
        raise InputError("name what to write: --output NAME.safetensors, --push OWNER/NAME, or both")
    if public and push is None:
        raise InputError("--public is for a repository of the hub; name it with --push OWNER/NAME")
    if output is not None:
        exported = export_checkpoint(checkpoint, output, results=results)
        print_text(f"{output}: {exported.tensors} tensors of {exported.encoder}, pretrained with {exported.method}")
    if push is not None:
        address = push_checkpoint(checkpoint, push, results=results, private=not public)
        print_text(f"{address}: run tasks on it with --checkpoint hf:{push}")
