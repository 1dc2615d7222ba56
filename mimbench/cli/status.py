"""`mimbench status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import (
    DeviceOption,
    OptionalResults,
    PluginOption,
    RunCheckpoint,
    RunMethods,
    RunRecipe,
    RunSeeds,
    RunTasks,
    RunVariations,
    SetOption,
    flag,
)
from mimbench.cli.run_options import run_options
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def status(
    grid: Annotated[Path | None, typer.Argument(help="A grid file, to see the cells of that run.")] = None,
    method: RunMethods = None,
    task: RunTasks = None,
    recipe: RunRecipe = None,
    seeds: RunSeeds = None,
    set_: SetOption = None,
    vary: RunVariations = None,
    checkpoint: RunCheckpoint = None,
    plugin: PluginOption = None,
    results: OptionalResults = None,
    device: DeviceOption = "auto",
    json_: Annotated[bool, flag("--json", "Print it as JSON.")] = False,
) -> None:
    """Print what of a run is recorded, running (where, since when), failed (why) and left.

    It reads the results folder alone, from any machine that has it. Without a grid file or options of a run, it shows
    all runs that were submitted with --executor.
    """
    from mimbench.executors.status import describe_status, status_of_folder, status_of_plan

    if any(option is not None for option in (grid, method, task, recipe, seeds, set_, vary, checkpoint)):
        options = run_options(method, task, recipe, seeds, set_, vary, results, grid, checkpoint, device)
        shown = status_of_plan(options)
    else:
        shown = status_of_folder(results or DEFAULT_RESULTS)
    if json_:
        print_text(json.dumps(shown.as_json(), indent=2, ensure_ascii=False))
    else:
        print_text(describe_status(shown), end="")
