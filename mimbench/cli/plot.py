"""`mimbench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import LabelOption, MethodsOption, MetricsOption, ResultsOption, TasksOption
from mimbench.errors import InputError
from mimbench.options import parse_labels, split_names
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text


def plot_kind_names(incomplete: str) -> list[str]:
    from mimbench.report.plots.kinds import ALL, plot_kinds

    return [kind for kind in [*plot_kinds(), ALL] if kind.startswith(incomplete)]


def plot(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="What to draw, or all: every kind that the records support. Without it, the kinds are listed.",
            autocompletion=plot_kind_names,
        ),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    method: MethodsOption = "",
    task: TasksOption = "",
    metric: MetricsOption = "",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="A method: bars show differences from it, ablation and epochs a line at its score."
        ),
    ] = None,
    over: Annotated[
        str | None, typer.Option("--over", help="For ablation: the path of the varied setting on the x axis.")
    ] = None,
    spread: Annotated[
        str, typer.Option("--spread", help="ci (95 % interval of the mean over seeds) or sd (± std over seeds).")
    ] = "ci",
    label: LabelOption = None,
    width: Annotated[float, typer.Option("--width", help="Inches. A paper's column is 3.4 wide.")] = 3.4,
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="png, pdf, svg, comma-separated.", show_default="by the suffix of --output, or all"
        ),
    ] = "",
    output: Annotated[
        Path, typer.Option("--output", help="A folder, or a file that ends in .png, .pdf or .svg.")
    ] = Path("plots"),
) -> None:
    """Draw records for a paper: vector files and PNG; one panel per protocol."""
    from mimbench.display import relabelled
    from mimbench.report.plots.command import plot_command
    from mimbench.report.plots.source import Options

    if kind is None:
        print_text("\n".join(plot_kind_names("")))
        return
    if spread not in ("ci", "sd"):
        raise InputError(f"--spread {spread!r}: choose ci (95 % interval of the mean) or sd (std over seeds)")
    options = Options(
        methods=tuple(split_names(method)),
        tasks=tuple(split_names(task)),
        metrics=tuple(split_names(metric)),
        baseline=baseline,
        over=over,
        spread="sd" if spread == "sd" else "ci",
        width=width,
    )
    with relabelled(parse_labels(label or [])):
        plot_command(kind, options, results=results, output=output, formats=tuple(split_names(format_)), say=print_text)
