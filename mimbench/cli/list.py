"""`mimbench list`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from mimbench.cli.options import PluginOption, flag
from mimbench.text import print_line, print_text

if TYPE_CHECKING:
    from mimbench.registry import Plugin, Registry


def list_plugins(
    names: Annotated[bool, flag("--names", "Print only names and owners.")] = False,
    check: Annotated[bool, flag("--check", "Import each plugin and report every problem; takes longer.")] = False,
    plugin: PluginOption = None,
) -> None:
    """List methods, tasks, datasets, encoders, monitors and recipes, described; broken plugins with the reason."""
    from mimbench import registry
    from mimbench.recipe.document import recipe_names

    for kind in (*registry.ALL, registry.monitors):
        print_text(f"{kind.kind}s")
        for one in _plugins(kind, names, check):
            text = f"BROKEN: {one.problem}" if one.problem else one.summary
            print_line(f"  {one.name:<24} {one.owner:<18}  {text}".rstrip())
    print_text("recipes")
    for name in recipe_names():
        print_line(f"  {name:<24} {_describe_recipe(name)}")


def _describe_recipe(name: str) -> str:
    """Owner and summary of a recipe, or why it cannot be used."""
    from mimbench.errors import InputError
    from mimbench.recipe.document import owner_of, read

    try:
        return f"{owner_of(name):<18}  {read(name).get('summary', '')}"
    except InputError as error:
        return f"BROKEN: {error}"


def _plugins(kind: Registry, names: bool, check: bool) -> Iterable[Plugin]:
    if check:
        return kind.survey()
    return kind.overview() if names else kind.outline()
