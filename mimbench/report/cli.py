"""The commands that read records: table, plot, robustness, report. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimbench.errors import InputError
from mimbench.options import names
from mimbench.store import DEFAULT_RESULTS
from mimbench.text import print_text

MethodsOption = Annotated[str, typer.Option("--method", help="These methods only, comma-separated.")]
TasksOption = Annotated[str, typer.Option("--task", help="These tasks only, comma-separated.")]


def table(
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Folder of records; other machines' may be copied in. [default: runs]"),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="text, markdown, csv, html or latex; default: by --output, or text.")
    ] = None,
    rows: Annotated[str, typer.Option("--rows", help="What rows stand for: fields, or paths of the recipe.")] = "",
    columns: Annotated[str, typer.Option("--columns", help="And columns: method, method.mask_ratio, ...")] = "",
    metrics: Annotated[str, typer.Option("--metrics", help="Metrics, comma-separated; default: the primary.")] = "",
    method: MethodsOption = "",
    task: TasksOption = "",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="Differences to it, paired by seed, with their interval: a method, or one of its settings as "
            "METHOD:PATH=VALUE,..., such as simmim:method.mask_ratio=0.6.",
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Papers' numbers beside ours; without --results, the papers' numbers alone."),
    ] = False,
    rank: Annotated[bool, typer.Option("--rank", help="The mean rank over tasks, with its interval.")] = False,
    spread: Annotated[str, typer.Option("--spread", help="After ±: sd (over seeds) or se (of the mean).")] = "sd",
    layout: Annotated[
        str | None, typer.Option("--layout", help="A paper's table (`list` names them), or a TOML file.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file.")] = None,
) -> None:
    """Print a table of records: mean, seed sd and n; best and second marked; each protocol in a column of its own."""
    from mimbench.report.scores.baseline import Baseline
    from mimbench.report.scores.collect import Choice
    from mimbench.report.tables.command import table_command

    if spread not in ("sd", "se"):
        raise InputError(f"--spread {spread!r}: sd (seed standard deviation) or se (standard error of the mean)")
    choice = Choice(
        rows=tuple(names(rows)),
        columns=tuple(names(columns)),
        metrics=tuple(names(metrics)),
        methods=tuple(names(method)),
        tasks=tuple(names(task)),
        baseline=Baseline.read(baseline) if baseline else None,
        published=published,
        ranks=rank,
        spread="se" if spread == "se" else "sd",
    )
    text = table_command(
        choice,
        results=results,
        format=format_,
        layout=layout,
        output=output,
        warn=lambda line: print_text(line, error=True),
    )
    print_text(text if text is not None else f"written: {output}", end="" if text is not None else "\n")


def robustness(
    results: Annotated[Path, typer.Option("--results", help="Folder of records.")] = DEFAULT_RESULTS,
    baseline: Annotated[str, typer.Option("--baseline", help="The method whose errors count as 100.")] = "random-init",
    format_: Annotated[str, typer.Option("--format", help="text, markdown, csv, html or latex.")] = "text",
) -> None:
    """Print mean corruption errors (mCE) of robustness records against a baseline, and each corruption's."""
    from mimbench.report.tables.render import render
    from mimbench.report.tables.robustness import corruption_table
    from mimbench.store.record import read_records

    print_text(render(corruption_table(read_records(results), baseline), format_), end="")


def report(
    output: Annotated[Path, typer.Option("--output", help="Folder of the page: new, or with an earlier report.")],
    results: Annotated[
        Path, typer.Option("--results", help="Folder of records; other machines' may be copied in.")
    ] = DEFAULT_RESULTS,
) -> None:
    """Write one self-contained page: leaderboard, runs, comparisons, ablations, published numbers, downloads."""
    from mimbench.report.page.build import report_command

    print_text(f"written: {report_command(results, output)}")


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="bars, ablation, epochs, layers, ratios, cost, loss, seeds, reconstructions, generated, detections, "
            "segmentations, or all: every kind that the records support."
        ),
    ],
    results: Annotated[Path, typer.Option("--results", help="Folder of records and pictures.")] = DEFAULT_RESULTS,
    output: Annotated[
        Path, typer.Option("--output", help="A folder, or a file that ends in .png, .pdf or .svg.")
    ] = Path("plots"),
    format_: Annotated[
        str, typer.Option("--format", help="png, pdf, svg, comma-separated; default: by --output, or all of them.")
    ] = "",
    method: MethodsOption = "",
    task: TasksOption = "",
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
        methods=tuple(names(method)),
        tasks=tuple(names(task)),
        metrics=tuple(names(metric)),
        baseline=baseline,
        over=over,
        spread="sd" if spread == "sd" else "ci",
        width=width,
    )
    plot_command(kind, options, results=results, output=output, formats=tuple(names(format_)), say=print_text)
