"""`mimbench check`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimbench.cli.options import PluginOption, SetOption, recipe_names
from mimbench.errors import InputError, nearest
from mimbench.text import print_line

if TYPE_CHECKING:
    from mimbench.registry import Registry
    from mimbench.testing import Suite

KINDS = ("method", "task", "dataset", "encoder")
RECIPE = "check"
"""The preset with sizes and trainings of seconds."""


def check(
    kind: Annotated[str, typer.Argument(help="method, task, dataset or encoder.", autocompletion=lambda: list(KINDS))],
    name: Annotated[str, typer.Argument(help="Name of the plugin.")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", help="A preset's name or a TOML file with small options.", autocompletion=recipe_names
        ),
    ] = RECIPE,
    set_: SetOption = None,
    plugin: PluginOption = None,
) -> None:
    """Check a plugin against its contract, on the CPU, and print each check. Exit code 1: a check fails."""
    from mimbench import registry

    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}{nearest(kind, KINDS)}")
    plugins = next(one for one in registry.ALL if one.kind == kind)
    results = _suite(plugins, name, recipe, set_ or []).run()
    print_line(f"{kind} {name}, from {plugins.owner(name)}")
    width = max(len(result.name) for result in results)
    for result in results:
        print_line(f"  {result.name:<{width}}  {result.status:<7}  {result.message}".rstrip())
    counts = Counter(result.status for result in results)
    print_line(", ".join(f"{count} {status}" for status, count in counts.items()))
    raise typer.Exit(1 if counts["failed"] else 0)


def _suite(plugins: Registry, name: str, recipe_name: str, assignments: list[str]) -> Suite:
    """The checks of a plugin with its options from a recipe and --set."""
    from mimbench import testing
    from mimbench.cli.options import METHOD_TO_RESOLVE
    from mimbench.contract import Audit
    from mimbench.recipe.document import parse_assignments, read
    from mimbench.recipe.resolve import check_settings, resolve

    plugin, kind = plugins.load(name), plugins.kind
    settings = _of_kind(kind, parse_assignments(assignments))
    method = name if kind == "method" else METHOD_TO_RESOLVE
    task = name if kind == "task" else None
    chosen: dict[str, Any] = {"encoder": {"encoder.name": name}, "dataset": {"data.name": name}}.get(kind, {})
    check_settings(list(settings), [method], [task] if task else [])
    recipe = resolve(recipe_name, read(recipe_name), method, {**settings, **chosen}, task)
    channels = len(recipe.input.mean)
    if kind == "task":
        suite = testing.audit_suite if issubclass(plugin, Audit) else testing.task_suite
        return suite(plugin, recipe.task(name).config)
    if kind == "dataset":
        return testing.dataset_suite(plugin, recipe.data)
    if kind == "encoder":
        size, frames = recipe.input.image_size, recipe.input.frames
        return testing.encoder_suite(plugin, recipe.encoder_config, image_size=size, channels=channels, frames=frames)
    encoder = recipe.encoder_class()
    if not plugin.encoder_needs <= encoder.can and "encoder.name" not in settings:
        return testing.method_suite(plugin, recipe.method_config)
    return testing.method_suite(
        plugin,
        recipe.method_config,
        encoder=encoder,
        encoder_options=recipe.encoder_config,
        input_config=recipe.input,
        channels=channels,
    )


def _of_kind(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, of which none may be for a plugin of another kind. Messages of datasets name "task.data.KEY"."""
    if kind == "dataset":
        settings = {
            f"data.{p.removeprefix('task.data.')}" if p.startswith("task.data.") else p: v for p, v in settings.items()
        }
    for path in settings:
        head = path.partition(".")[0]
        if head in ("method", "task") and head != kind:
            raise InputError(f"{path!r} is a setting of a {head}, and a {kind} is checked; leave it out")
    return settings
