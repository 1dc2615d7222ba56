"""`mimbench cost`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mimbench.cli.options import PluginOption, RecipeOption, SetOption, names_of
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.text import align_columns, print_line

if TYPE_CHECKING:
    from mimbench.harness.planning.step_cost import StepCost
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

    One step runs on random images or clips, on the CPU, at the final mask ratio. By default these are the methods
    that take what the recipe has, images or clips. GFLOPs are of the forward and backward pass, 2 a
    multiplication with addition. "predicts", "sees" and "further networks" are those of the default options.
    """
    from mimbench import registry
    from mimbench.advice import short_text
    from mimbench.cli.options import resolve_methods
    from mimbench.errors import InputError
    from mimbench.harness.planning.step_cost import count_step
    from mimbench.recipe.document import parse_assignments, read
    from mimbench.recipe.resolve import check_settings, resolve

    names = [name.strip() for name in (resolve_methods(method) or "").split(",") if name.strip()]
    settings, document = parse_assignments(set_ or []), read(recipe)
    chosen = names or list(registry.methods.names())
    rows, refused = [], []
    if names:
        check_settings(list(settings), chosen, [])
    for name in chosen:
        try:
            resolved = resolve(recipe, document, name, settings, None)
            method_class, are_clips = resolved.method_class(), resolved.input.frames > 1
            if not names and not (method_class.takes_clips if are_clips else method_class.takes_images):
                continue
            if method_class.pretrains:
                rows.append(_row(resolved, count_step(resolved, channels=len(resolved.input.mean))))
        except Exception as error:  # a plugin's fault is no reason to print no table
            if names and isinstance(error, InputError):
                raise
            refused.append(f"left out: {name}: {short_text(error) or type(error).__name__}")
    for line in _markdown(rows) if format == "markdown" else align_columns([HEAD, *rows]):
        print_line(line)
    for line in refused:
        print_line(line, error=True)
    raise typer.Exit(1 if refused else 0)


def _row(recipe: Recipe, cost: StepCost) -> tuple[str, ...]:
    method = recipe.method_class()
    return (
        recipe.method, recipe.encoder, method.predicts, method.sees, ", ".join(method.networks),
        ", ".join(method.supervision), f"{cost.patches:.0f}" if cost.patches else "-",
        f"{cost.flops / 1e9:.3g}", f"{cost.trained / 1e6:.3g}", f"{cost.stored / 1e6:.3g}",
    )  # fmt: skip


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
