"""`mimbench plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mimbench.cli.options import (
    METHOD_TO_RESOLVE,
    PluginOption,
    RunRecipe,
    SetOption,
    flag,
    names_of,
    resolve_methods,
)
from mimbench.options import split_names
from mimbench.text import print_text

if TYPE_CHECKING:
    from mimbench.harness.forecast.forecast import Machine


def plan(
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="Methods, comma-separated.",
            autocompletion=names_of("methods"),
            callback=resolve_methods,
        ),
    ] = METHOD_TO_RESOLVE,
    task: Annotated[
        str, typer.Option("--task", help="Downstream tasks, comma-separated.", autocompletion=names_of("tasks"))
    ] = "",
    recipe: RunRecipe = None,
    set_: SetOption = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", help="Number and kind, such as 8xH100 or 4x8xA100.", show_default="this machine"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", help="Memory of one GPU, such as 80GB.", show_default="that of the card"),
    ] = None,
    mfu: Annotated[
        float, typer.Option("--mfu", help="Share of the card's peak that a training reaches.", min=0.001, max=1.0)
    ] = 0.3,
    measure: Annotated[
        float,
        typer.Option("--measure", help="Measure steps on this machine, for so many seconds per stage.", min=0.0),
    ] = 0.0,
    images: Annotated[
        int | None,
        typer.Option("--images", help="Training images of a dataset that is not here.", min=1, show_default=False),
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="Its number of classes.", min=1, show_default=False)
    ] = None,
    plugin: PluginOption = None,
    json_: Annotated[bool, flag("--json", "Print the plan as JSON.")] = False,
) -> None:
    """Print what a run would need, without data, weights or a GPU: operations, memory per GPU, time, disk.

    Steps are traced with tensors that have shapes and no values, so nothing is trained. The memory is that of the
    recipe's micro-batch; beside it stands the largest micro-batch that fits.
    """
    import functools

    from mimbench.errors import InputError
    from mimbench.harness.forecast.describe import as_json, describe
    from mimbench.harness.forecast.forecast import forecast
    from mimbench.harness.forecast.sizes import AbsentData
    from mimbench.recipe.document import parse_assignments, read
    from mimbench.recipe.needs import default_recipe
    from mimbench.recipe.resolve import check_settings, resolve

    if measure and gpus:
        raise InputError("--measure measures on this machine, and --gpus names another one: leave one of them out")
    methods, tasks = split_names(method), split_names(task)
    recipe = recipe or default_recipe(methods, tasks)
    settings, document, machine = parse_assignments(set_ or []), read(recipe), _machine(gpus, memory)
    check_settings(list(settings), methods, tasks)
    forecasts = [
        forecast(
            functools.partial(resolve, recipe, document, name, settings),
            tasks,
            machine,
            mfu=mfu,
            absent=AbsentData(images, classes),
            measure_seconds=measure,
        )
        for name in methods
    ]
    if json_:
        print_text(json.dumps([as_json(one) for one in forecasts], indent=2, ensure_ascii=False))
    else:
        print_text("\n".join(describe(one) for one in forecasts), end="")


def _machine(gpus: str | None, memory: str | None) -> Machine:
    from mimbench.engine.device import pick_device
    from mimbench.errors import InputError
    from mimbench.harness.forecast.forecast import Machine
    from mimbench.harness.forecast.gpus import GIB, card_here, parse_gpus
    from mimbench.harness.planning.size import memory_of

    if gpus is not None:
        count, card = parse_gpus(gpus, memory)
        return Machine(card.name, count, card.memory, card.usable, True, card)
    if memory is not None:
        raise InputError("--memory is of a card that --gpus names, such as --gpus 8xA100 --memory 40GB")
    device = pick_device("auto")
    if device.type == "cuda":
        card = card_here()
        return Machine(card.name, 1, card.memory, card.usable, True, card)
    available = memory_of(device)
    return Machine("cpu", 1, round(available / GIB, 1), available, False)
