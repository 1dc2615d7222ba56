"""`mimbench import`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimbench.cli.options import PluginOption, ResultsOption, SetOption, names_of, recipe_names, resolve_methods
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import list_first, print_line, print_text

if TYPE_CHECKING:
    from mimbench.harness.exchange import Imported


def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pt or .safetensors.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="The method that pretrained it.",
            autocompletion=names_of("methods"),
            callback=resolve_methods,
        ),
    ],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="The size of its encoder: vit-base, swin-tiny, convnext-base, ...")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="Instead of --encoder: the recipe that names the encoder.", autocompletion=recipe_names
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Which weights to take if the file holds several: model_ema, teacher, ..."),
    ] = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Import a checkpoint from another code base. Every task then runs on it as on a pretraining of mimbench."""
    from mimbench.harness.exchange import import_checkpoint
    from mimbench.recipe.document import parse_assignments

    imported, folder = import_checkpoint(
        file,
        method=method,
        encoder=encoder,
        recipe=recipe,
        settings=parse_assignments(set_ or []),
        results=results,
        key=key,
        on_wait=lambda: print_text("waiting: another process imports the same file", error=True),
    )
    for line in describe_import(imported):
        print_line(line)
    print_text(f"checkpoint: {folder}")
    print_text(f"next: mimbench run --checkpoint {folder.name} --results {results} --task TASK --recipe RECIPE")


def describe_import(imported: Imported) -> Iterator[str]:
    """What the file is, and what became of its tensors."""
    converted, what, weights = imported.converted, imported.identity, imported.weights
    if weights.others:
        others = ", ".join(weights.others)
        yield f"weights: {weights.key} ({weights.why}); also in the file: {others}; choose with --key"
    elif weights.key:
        yield f"weights: {weights.key}"
    yield f"layout: {imported.layout.name} ({imported.layout.source})"
    yield (
        f"encoder: {what['encoder']['name']}, {len(imported.method.encoder.state_dict())} tensors, all found and of "
        f"the right shape; images {what['image_size']} px, {what['channels']} channels"
    )
    of_method = sum(not name.startswith("encoder.") for name in converted.state)
    if of_method:
        yield f"method {what['method']['name']}: {of_method} further tensors"
    yield from _by_reason("changed", converted.changed)
    yield from _by_reason("left out", converted.left_out)


def _by_reason(label: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """One line per reason, with the first keys that it applies to."""
    keys_by_reason: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys_by_reason.setdefault(reason, []).append(key)
    for reason, keys in keys_by_reason.items():
        yield f"{label}: {list_first(keys)}: {reason}"
