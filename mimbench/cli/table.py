"""`mimbench table`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from mimbench.cli.options import (
    LabelOption,
    MethodsOption,
    MetricsOption,
    OptionalResults,
    OutputOption,
    TableFormatOption,
    TasksOption,
    flag,
)
from mimbench.cli.output import print_table
from mimbench.errors import InputError
from mimbench.options import parse_labels, split_names
from mimbench.text import print_text


def table(
    results: OptionalResults = None,
    method: MethodsOption = "",
    task: TasksOption = "",
    metric: MetricsOption = "",
    rows: Annotated[
        str, typer.Option("--rows", help="Fields of rows: method, encoder, ..., or paths of recipe settings.")
    ] = "",
    columns: Annotated[str, typer.Option("--columns", help="Fields of columns: task, method.mask_ratio, ...")] = "",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="Print differences from it, paired by seed, with their intervals: a method, or one of its settings "
            "as METHOD:PATH=VALUE,..., such as simmim:method.mask_ratio=0.6.",
        ),
    ] = None,
    published: Annotated[
        bool,
        flag("--published", "Add papers' numbers. Without --results, print only the papers' numbers."),
    ] = False,
    rank: Annotated[bool, flag("--rank", "Add the mean rank over tasks, with its interval.")] = False,
    spread: Annotated[
        str, typer.Option("--spread", help="After ±: sd (std over seeds) or se (standard error of the mean).")
    ] = "sd",
    interval: Annotated[
        str,
        typer.Option(
            "--interval",
            help="In place of ±, the 95 % interval of each mean, for other seeds, images, or seeds,images; differences "
            "from a baseline too.",
        ),
    ] = "",
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="A paper's table by name (`--layout list` prints them) or a TOML file."),
    ] = None,
    label: LabelOption = None,
    caption: Annotated[str, typer.Option("--caption", help="LaTeX: the caption.")] = "",
    reference: Annotated[str, typer.Option("--reference", help="LaTeX: the \\label, such as tab:main.")] = "",
    wide: Annotated[bool, flag("--wide", "LaTeX: a table* environment, which spans both columns.")] = False,
    bare: Annotated[bool, flag("--bare", "LaTeX: the tabular alone, without caption and notes.")] = False,
    format_: TableFormatOption = None,
    output: OutputOption = None,
) -> None:
    """Print a table of records: mean and std over seeds; best and similar marked; one column per protocol."""
    from mimbench.display import relabelled
    from mimbench.report.scores.baseline import Baseline
    from mimbench.report.scores.choice import Choice
    from mimbench.report.tables.command import choose_format, table_command
    from mimbench.report.tables.render.latex import LatexOptions

    if spread not in ("sd", "se"):
        raise InputError(f"--spread {spread!r}: choose sd (std over seeds) or se (standard error of the mean)")
    choice = Choice(
        row_fields=tuple(split_names(rows)),
        column_fields=tuple(split_names(columns)),
        metrics=tuple(split_names(metric)),
        methods=tuple(split_names(method)),
        tasks=tuple(split_names(task)),
        baseline=Baseline.parse(baseline) if baseline else None,
        published=published,
        ranks=rank,
        spread="se" if spread == "se" else "sd",
        interval=_parse_interval(interval, spread),
    )
    format_ = choose_format(format_, output)
    choices = {"--caption": caption, "--reference": reference, "--wide": wide, "--bare": bare}
    if format_ != "latex" and any(choices.values()):
        used = ", ".join(name for name, value in choices.items() if value)
        raise InputError(f"{used}: for LaTeX only; add --format latex")
    if not re.fullmatch(r"[\w:./-]*", reference):
        raise InputError(f"--reference {reference!r}: use letters, digits and :./- only, as in tab:main")
    with relabelled(parse_labels(label or [])):
        text = table_command(
            choice,
            results=results,
            format=format_,
            layout=layout,
            latex=LatexOptions(caption, reference, wide, bare),
            warn=lambda line: print_text(line, error=True),
        )
    print_table(text, output)


def _parse_interval(text: str, spread: str) -> tuple[str, ...]:
    """What intervals cover, in the order of their names in notes."""
    names = split_names(text)
    if text and (not names or not set(names) <= {"seeds", "images"}):
        raise InputError(f"--interval {text!r}: choose seeds, images, or seeds,images")
    if names and spread != "sd":
        raise InputError("--interval takes the place of ±: leave --spread out")
    return tuple(name for name in ("seeds", "images") if name in names)
