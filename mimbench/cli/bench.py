"""`mimbench bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mimbench.cli.options import METHOD_TO_RESOLVE, MethodOption, PluginOption, RunRecipe, SetOption, examples
from mimbench.text import align_columns, print_line

if TYPE_CHECKING:
    from mimbench.harness.data_rates import DataRates, Rate

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure how fast parts of a run are on this machine.",
    epilog=examples("mimbench bench data --method mae --recipe imagenet-vit-base --set data.root=PATH"),
)


@app.callback()
def bench() -> None:
    pass


@app.command(
    "data",
    epilog=examples(
        "mimbench bench data",
        "mimbench bench data --set data.name=folder --set data.root=PATH --set pretrain.workers=8",
    ),
)
def bench_data(
    method: MethodOption = METHOD_TO_RESOLVE,
    recipe: RunRecipe = None,
    set_: SetOption = None,
    plugin: PluginOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seconds: Annotated[float, typer.Option("--seconds", help="Time per row of the table.", min=0.1)] = 5.0,
) -> None:
    """Print the rate of a recipe's loader beside that of its training steps, and which of both waits for the other.

    Rates are in images per second of one process. The loader is measured alone, steps on one batch that stays in
    memory, and both together. Nothing is trained further and nothing is written.
    """
    from mimbench.engine.device import pick_device
    from mimbench.harness.data_rates import measure_rates
    from mimbench.recipe.document import parse_assignments, read
    from mimbench.recipe.needs import default_recipe
    from mimbench.recipe.resolve import check_settings, resolve

    recipe = recipe or default_recipe([method], [])
    settings = parse_assignments(set_ or [])
    check_settings(list(settings), [method], [])
    resolved = resolve(recipe, read(recipe), method, settings, None)
    rates = measure_rates(resolved, pick_device(device), seconds=seconds)
    for line in align_columns(_rows(rates)):
        print_line(line)
    print_line(verdict(rates))


def _rows(rates: DataRates) -> list[tuple[str, ...]]:
    loader = "images in memory" if rates.is_in_memory else f"{rates.workers} workers" if rates.workers else "no workers"
    return [
        ("", "images/s", f"ms per batch of {rates.batch}"),
        _row(f"loader ({loader})", rates.loader, rates),
        _row(f"step ({rates.device}, {rates.precision})", rates.step, rates),
        _row(f"both (step waits {rates.waiting:.0%} of the time)", rates.together, rates),
    ]


def _row(name: str, rate: Rate, rates: DataRates) -> tuple[str, ...]:
    return name, f"{rate.per_second:,.0f}", f"{1000 * rates.batch / rate.per_second:.1f}"


def verdict(rates: DataRates) -> str:
    """One line: which side waits for the other one, and what to do about it."""
    ratio = rates.loader.per_second / rates.step.per_second
    if rates.waiting_side == "neither":
        return "neither waits for the other: loader and step are equally fast"
    if rates.waiting_side == "loader":
        return f"the loader waits for the step: alone it is {ratio:.1f} times as fast"
    line = f"the step waits for the loader, which gives {ratio:.0%} of the images that the step could take"
    ways = [] if rates.is_in_memory else ["raise pretrain.workers"]
    if rates.decoding == "full":
        ways.append("set data.decode=scaled" if rates.device.startswith("cpu") else "set data.decode=device")
    return f"{line}; {' or '.join(ways)}" if ways else line
