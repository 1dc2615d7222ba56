"""The command `mimbench plot`. Importing this imports nothing that draws: `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.errors import InputError


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="bars, ablation, epochs, layers, ratios, cost, loss, seeds, reconstructions, generated, detections, "
            "segmentations, or all: every kind that the records support."
        ),
    ],
    results: Annotated[Path, typer.Option("--results", help="Folder of records and pictures.")] = Path("runs"),
    output: Annotated[
        Path, typer.Option("--output", help="A folder, or a file that ends in .png, .pdf or .svg.")
    ] = Path("plots"),
    format_: Annotated[
        str, typer.Option("--format", help="png, pdf, svg, comma-separated; default: by --output, or all of them.")
    ] = "",
    method: Annotated[str, typer.Option("--method", help="These methods only, comma-separated.")] = "",
    task: Annotated[str, typer.Option("--task", help="These tasks only, comma-separated.")] = "",
    metric: Annotated[str, typer.Option("--metric", help="Metrics, comma-separated; default: the primary.")] = "",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="A method: bars show differences to it, ablation and epochs a line at it."),
    ] = None,
    over: Annotated[str | None, typer.Option("--over", help="For ablation: the varied path to draw over.")] = None,
    spread: Annotated[
        str, typer.Option("--spread", help="ci (95 % interval of the mean over seeds) or sd (±1 over seeds).")
    ] = "ci",
    width: Annotated[float, typer.Option("--width", help="Inches; 3.4 is a column of a paper.")] = 3.4,
) -> None:
    """Draw records for a paper: vector files and PNG; each protocol in a panel of its own."""
    from mimbench.report.plots.command import plot_command
    from mimbench.report.plots.source import Options

    if spread not in ("ci", "sd"):
        raise InputError(f"--spread {spread!r}: ci (95 % interval of the mean) or sd (seed standard deviation)")
    options = Options(
        methods=_names(method),
        tasks=_names(task),
        metrics=_names(metric),
        baseline=baseline,
        over=over,
        spread="sd" if spread == "sd" else "ci",
        width=width,
    )
    plot_command(kind, options, results=results, output=output, formats=_names(format_), say=print)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
