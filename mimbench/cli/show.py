"""`mimbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import MethodOption, RecipeOption, SetOption, recipe_names
from mimbench.files import writing
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.text import print_text

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Print a resolved recipe or a task's config file.")


@app.command("recipe")
def show_recipe(
    name: Annotated[
        str, typer.Argument(help="A preset's name or a TOML file.", autocompletion=recipe_names)
    ] = DEFAULT_RECIPE,
    method: MethodOption = "simmim",
    set_: SetOption = None,
) -> None:
    """Print a resolved recipe: every value with its source, and the arithmetic of scaled learning rates."""
    from mimbench.recipe.document import parse_assignments
    from mimbench.recipe.show import describe

    print_text(describe(name, method, parse_assignments(set_ or [])), end="")


@app.command("detection")
def show_detection(
    recipe: RecipeOption = DEFAULT_RECIPE,
    method: MethodOption = "simmim",
    set_: SetOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file instead.")] = None,
) -> None:
    """Print the detection task as an mmdet config file, which plain mmdet runs."""
    from mimbench.harness.show_task import task_file
    from mimbench.recipe.document import parse_assignments

    text = task_file("detection", recipe, method, parse_assignments(set_ or []))
    if output is None:
        print_text(text, end="")
        return
    with writing(f"--output {output}"):
        output.write_text(text, encoding="utf-8")
