"""`mimbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import (
    METHOD_TO_RESOLVE,
    MethodOption,
    PluginOption,
    RecipeOption,
    ResultsOption,
    SetOption,
    examples,
    flag,
    names_of,
    recipe_names,
)
from mimbench.errors import InputError
from mimbench.files import writing
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Print a resolved recipe, a plugin with its options, or a record.",
    epilog=examples(
        "mimbench show recipe smoke --method mae", "mimbench show task detection", "mimbench show method beit"
    ),
)


@app.command(
    "recipe",
    epilog=examples("mimbench show recipe imagenet-vit-base --method mae", "mimbench show recipe mine.toml"),
)
def show_recipe(
    name: Annotated[
        str, typer.Argument(help="A recipe's name or a TOML file.", autocompletion=recipe_names)
    ] = DEFAULT_RECIPE,
    method: MethodOption = METHOD_TO_RESOLVE,
    set_: SetOption = None,
    plugin: PluginOption = None,
) -> None:
    """Print a resolved recipe: every value with its source, and the arithmetic of scaled learning rates."""
    from mimbench.recipe.document import parse_assignments
    from mimbench.recipe.show import describe

    print_text(describe(name, method, parse_assignments(set_ or [])), end="")


@app.command("method", epilog=examples("mimbench show method simmim"))
def show_method(
    name: Annotated[str, typer.Argument(help="A method.", autocompletion=names_of("methods"))],
    plugin: PluginOption = None,
) -> None:
    """Print what a method is, the encoders it takes, and its options."""
    _print_plugin("methods", name)


@app.command(
    "task",
    epilog=examples(
        "mimbench show task knn",
        "mimbench show task detection --config --recipe imagenet-vit-base --method mae --output vitdet.py",
    ),
)
def show_task(
    name: Annotated[str, typer.Argument(help="A task.", autocompletion=names_of("tasks"))],
    config: Annotated[
        bool, flag("--config", "Print the task as a config file of the library it is built on, such as mmdet.")
    ] = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
    method: MethodOption = METHOD_TO_RESOLVE,
    set_: SetOption = None,
    plugin: PluginOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file.")] = None,
) -> None:
    """Print a task's metrics, protocols and options, or with --config its config file for a recipe and method."""
    if not config:
        if set_:
            raise InputError("--set changes the config file of a task only; add --config")
        _write(_plugin_text("tasks", name), output)
        return
    from mimbench.harness.export_task import export_task
    from mimbench.recipe.document import parse_assignments

    _write(export_task(name, recipe, method, parse_assignments(set_ or [])), output)


@app.command("dataset", epilog=examples("mimbench show dataset folder"))
def show_dataset(
    name: Annotated[str, typer.Argument(help="A dataset.", autocompletion=names_of("datasets"))],
    plugin: PluginOption = None,
) -> None:
    """Print what a dataset is, what it provides, and its options."""
    _print_plugin("datasets", name)


@app.command("encoder", epilog=examples("mimbench show encoder vit"))
def show_encoder(
    name: Annotated[str, typer.Argument(help="An encoder.", autocompletion=names_of("encoders"))],
    plugin: PluginOption = None,
) -> None:
    """Print what an encoder is, and its options."""
    _print_plugin("encoders", name)


@app.command("record", epilog=examples("mimbench show record 3f2a --results runs"))
def show_record(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Id of a record, its first characters, or its file.")],
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Print a record in words: what was measured, on which checkpoint, at which cost."""
    from mimbench.store.describe_record import describe_record, find_record

    print_text(describe_record(*find_record(results, identifier)), end="")


def _print_plugin(kind: str, name: str) -> None:
    print_text(_plugin_text(kind, name), end="")


def _plugin_text(kind: str, name: str) -> str:
    from mimbench import registry
    from mimbench.harness.describe_plugin import describe_plugin

    return describe_plugin(getattr(registry, kind), name)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print_text(text, end="")
        return
    with writing(f"--output {output}"):
        output.write_text(text, encoding="utf-8")
