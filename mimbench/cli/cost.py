"""`mimbench cost`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mimbench.cli.options import PluginOption, RecipeOption, SetOption, names_of
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.text import align_columns, print_line

if TYPE_CHECKING:
    from mimbench.harness.cost import StepCost
    from mimbench.recipe.resolve import Recipe

HEAD = (
    "method", "encoder", "predicts", "sees", "further networks", "also learns from", "patches", "GFLOPs",
    "trained (M)", "stored (M)",
)  # fmt: skip


def cost(
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="Methods, with commas between. Default: all.", autocompletion=names_of("methods")
        ),
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    set_: SetOption = None,
    format: Annotated[Literal["text", "markdown"], typer.Option("--format", help="How to print the table.")] = "text",
    plugin: PluginOption = None,
) -> None:
    """Count what one training step of each method costs per image: patches encoded, operations, parameters.

    One step runs on random images of 3 channels on the CPU. GFLOPs are of the forward and backward pass, 2 per
    multiplication with addition.
    """
    from mimbench import registry
    from mimbench.cli.options import resolve_methods
    from mimbench.errors import InputError
    from mimbench.harness.cost import count_step
    from mimbench.recipe.document import parse_assignments, read
    from mimbench.recipe.resolve import check_settings, resolve

    names = [name.strip() for name in (resolve_methods(method) or "").split(",") if name.strip()]
    settings, document = parse_assignments(set_ or []), read(recipe)
    chosen = names or [name for name in registry.methods.names() if registry.methods.load(name).pretrains]
    check_settings(list(settings), chosen, [])
    rows, refused = [], []
    for name in chosen:
        try:
            resolved = resolve(recipe, document, name, settings, None)
            rows.append(_row(resolved, count_step(resolved, channels=3)))
        except InputError as error:
            if names:
                raise
            refused.append(f"left out: {name}: {error}")
    for line in _markdown(rows) if format == "markdown" else align_columns([HEAD, *rows]):
        print_line(line)
    for line in refused:
        print_line(line, error=True)


def _row(recipe: Recipe, cost: StepCost) -> tuple[str, ...]:
    method = recipe.method_class()
    return (
        recipe.method, recipe.encoder, method.predicts, method.sees, ", ".join(method.networks),
        ", ".join(method.supervision), f"{cost.patches:.0f}", f"{cost.flops / 1e9:.3g}", f"{cost.trained / 1e6:.3g}",
        f"{cost.stored / 1e6:.3g}",
    )  # fmt: skip


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
