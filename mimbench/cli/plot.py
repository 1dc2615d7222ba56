"""`mimbench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.cli.options import LabelOption, MethodsOption, MetricsOption, ResultsOption, TasksOption, flag
from mimbench.errors import InputError, nearest
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
        str | None,
        typer.Option("--over", help="For ablation: the path of the varied setting on the x axis; heatmap: PATH,PATH."),
    ] = None,
    spread: Annotated[
        str, typer.Option("--spread", help="ci (95 % interval of the mean over seeds) or sd (± std over seeds).")
    ] = "ci",
    label: LabelOption = None,
    for_: Annotated[
        str,
        typer.Option("--for", help="Width of a column of cvpr, neurips, iclr or ieee, or slide.", show_default=False),
    ] = "",
    wide: Annotated[bool, flag("--wide", "With --for: the width of the page.")] = False,
    width: Annotated[
        float | None, typer.Option("--width", help="Inches.", show_default="3.4, a column of many papers")
    ] = None,
    font: Annotated[str, typer.Option("--font", help="An installed font.", show_default="DejaVu Sans")] = "",
    style: Annotated[str, typer.Option("--style", help="A matplotlib style, by name or file.")] = "",
    caption: Annotated[bool, flag("--caption", "Draw the caption (intervals, seeds) into the figure.")] = False,
    published: Annotated[bool, flag("--published", "ablation, epochs: add the curves of papers.")] = False,
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
    """Draw records for a paper: vector files and PNG; one panel per protocol. The caption is printed."""
    from mimbench.display import relabelled
    from mimbench.report.plots.command import plot_command
    from mimbench.report.plots.source import SINGLE_COLUMN, Options
    from mimbench.report.plots.style import DEFAULT_FONT, Look, looking
    from mimbench.report.plots.venues import VENUES

    if kind is None:
        print_text("\n".join(plot_kind_names("")))
        return
    if spread not in ("ci", "sd"):
        raise InputError(f"--spread {spread!r}: choose ci (95 % interval of the mean) or sd (std over seeds)")
    if for_ and for_ not in VENUES:
        raise InputError(f"--for {for_!r}: choose one of {', '.join(VENUES)}{nearest(for_, VENUES)}")
    if for_ and width is not None:
        raise InputError("--for and --width both set the width; leave one of them out")
    if wide and not for_:
        raise InputError(f"--wide: the page of what? Add --for {'|'.join(VENUES)}, or give --width INCHES")
    venue = VENUES.get(for_)
    if venue:
        width = venue.page if wide else venue.column
    look = Look(font or DEFAULT_FONT, style, venue.dpi if venue else Look.dpi)
    options = Options(
        methods=tuple(split_names(method)),
        tasks=tuple(split_names(task)),
        metrics=tuple(split_names(metric)),
        baseline=baseline,
        over=over,
        spread="sd" if spread == "sd" else "ci",
        width=SINGLE_COLUMN if width is None else width,
        caption=caption,
        published=published,
    )
    with relabelled(parse_labels(label or [])), looking(look):
        plot_command(kind, options, results=results, output=output, formats=tuple(split_names(format_)), say=print_text)
