"""What the commands' options have in common: their declarations, completion of names, and examples for --help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mimbench.recipe import DEFAULT_CLIPS, DEFAULT_RECIPE
from mimbench.store import DEFAULT_RESULTS

METHOD_TO_RESOLVE = "simmim"
"""The method that `show` resolves a recipe for if none is named."""


def flag(name: str, help: str) -> Any:
    """An option without a value. Typer would print "<bool>" after its name."""
    return typer.Option(name, help=help, metavar="")


def examples(*lines: str) -> str:
    """The end of a command's help, as click wants it: "\\b" keeps the line breaks of a paragraph."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines), "", "README.md explains all commands."])


def names_of(kind: str) -> Callable[[str], list[str]]:
    """A completion for comma-separated names of plugins; the last name is the incomplete one."""

    def complete(incomplete: str) -> list[str]:
        from mimbench import registry

        complete_names, comma, last = incomplete.rpartition(",")
        names: list[str] = getattr(registry, kind).names()
        return [f"{complete_names}{comma}{name}" for name in names if name.startswith(last)]

    return complete


def recipe_names(incomplete: str) -> list[str]:
    from mimbench.recipe import document

    return [name for name in document.recipe_names() if name.startswith(incomplete)]


def executor_names(incomplete: str) -> list[str]:
    from mimbench.executors import choice

    return [name for name in choice.executor_names() if name.startswith(incomplete)]


def _add_plugin_files(paths: list[Path] | None) -> list[Path] | None:
    for path in paths or ():
        from mimbench.plugin_file import add_plugin_file

        add_plugin_file(path)
    return paths


def resolve_methods(text: str | None) -> str | None:
    """Comma-separated methods, in which FILE.py:Class is replaced by the name of the class; the file is registered."""
    if text is None or ".py:" not in text:
        return text
    from mimbench.plugin_file import resolve_method

    return ",".join(resolve_method(part.strip()) for part in text.split(","))


PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="A Python file whose plugins are registered for this command. Repeatable.",
        metavar="FILE.py",
        is_eager=True,  # before options that name plugins
        callback=_add_plugin_files,
    ),
]
"""Its callback registers the plugins, so a command only has to declare it."""
RecipeOption = Annotated[
    str, typer.Option("--recipe", help="A recipe's name or a TOML file.", autocompletion=recipe_names)
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="The method to resolve the recipe for.",
        autocompletion=names_of("methods"),
        callback=resolve_methods,
    ),
]
MethodsOption = Annotated[
    str, typer.Option("--method", help="Only these methods, comma-separated.", autocompletion=names_of("methods"))
]
TasksOption = Annotated[
    str, typer.Option("--task", help="Only these tasks, comma-separated.", autocompletion=names_of("tasks"))
]
MetricsOption = Annotated[
    str,
    typer.Option("--metric", help="Metrics, comma-separated, or all. Default: each task's primary metric."),
]
TableFormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="text, markdown, csv, html or latex.", show_default="by the suffix of --output, or text"
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", help="What to call a method: simmim=Ours. Repeatable.", show_default=False),
]
OutputOption = Annotated[Path | None, typer.Option("--output", help="Write to this file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: table.key=value. Repeatable.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Results folder: checkpoints, records, artifacts.")]
RunMethods = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Methods, comma-separated. FILE.py:Class is a class of a file, as with --plugin.",
        autocompletion=names_of("methods"),
        callback=resolve_methods,
    ),
]
RunTasks = Annotated[
    str | None, typer.Option("--task", help="Downstream tasks, comma-separated.", autocompletion=names_of("tasks"))
]
RunRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A recipe's name or a TOML file.",
        show_default=f"{DEFAULT_RECIPE}; for methods or tasks that take clips only, {DEFAULT_CLIPS}",
        autocompletion=recipe_names,
    ),
]
RunSeeds = Annotated[str | None, typer.Option("--seeds", help="Seeds, comma-separated.", show_default="0")]
RunVariations = Annotated[list[str] | None, typer.Option("--vary", help="Run each value: table.key=x,y,z. Repeatable.")]
RunCheckpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="Checkpoint to use, no pretraining: its fingerprint or folder, or timm:MODEL or hf:REPO for a published "
        "encoder.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
OptionalResults = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="Results folder: checkpoints, records, artifacts.",
        show_default=str(DEFAULT_RESULTS),
    ),
]
