"""`mimbench run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimbench.cli.options import OptionalResults, PluginOption, SetOption, flag, names_of, recipe_names, resolve_methods
from mimbench.errors import Interrupted
from mimbench.options import parse_duration, parse_seeds, split_names
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.text import print_line, print_text

if TYPE_CHECKING:
    from mimbench.harness.run import Preview, RunResult

LISTED_FILES = 10
"""Artifacts of records that are listed one by one. If there are more, only their folder is printed."""


def run(
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Methods, comma-separated. FILE.py:Class is a class of a file, as with --plugin.",
            autocompletion=names_of("methods"),
            callback=resolve_methods,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Downstream tasks, comma-separated.", autocompletion=names_of("tasks"))
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="A recipe's name or a TOML file.",
            show_default=DEFAULT_RECIPE,
            autocompletion=recipe_names,
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds, comma-separated.", show_default="0")] = None,
    set_: SetOption = None,
    vary: Annotated[
        list[str] | None, typer.Option("--vary", help="Run each value: table.key=x,y,z. Repeatable.")
    ] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="A TOML file with all of these options; flags override it.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Fingerprint or folder of a checkpoint to use; no pretraining.")
    ] = None,
    plugin: PluginOption = None,
    results: OptionalResults = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[
        bool, flag("--dry-run", "Print the plan, what is done, and an estimate of the time left. Runs nothing.")
    ] = False,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", help="Save and stop after this time, such as 3h30m, with exit code 75."),
    ] = None,
    fresh: Annotated[
        bool, flag("--fresh", "Pretrain and measure again; replace existing checkpoints and records.")
    ] = False,
    json_: Annotated[bool, flag("--json", "Print the records as JSON on standard output.")] = False,
) -> None:
    """Pretrain each method once, run each task on it, write one record per cell, and print the table.

    Cells that have a record are skipped, so the same command continues after a stop. Several processes can run at
    the same time on one results folder and share the work.
    """
    from mimbench.harness.run import RunOptions, execute, preview
    from mimbench.recipe.document import parse_assignments, parse_variations

    seconds = None if time_limit is None else parse_duration(time_limit, "--time-limit")
    with _one_line_when_stopped(fresh, seconds):
        options = RunOptions(
            methods=None if method is None else split_names(method),
            tasks=None if task is None else split_names(task),
            recipe=recipe,
            seeds=None if seeds is None else parse_seeds(seeds),
            settings=parse_assignments(set_ or []),
            variations=parse_variations(vary or []),
            results=results,
            grid=grid,
            checkpoint=checkpoint,
            device=device,
            fresh=fresh,
        )
        if dry_run:
            _print_preview(preview(options), json_)
        else:
            result = execute(options)
            _print_result(result, json_)
            raise typer.Exit(1 if result.outcome.failures else 0)


def _print_preview(plan: Preview | None, as_json: bool) -> None:
    if plan is None:  # another rank prints it
        return
    from mimbench.harness.planning.dryrun import describe_plan

    for line in plan.code_changes:
        print_text(line, error=True)
    if as_json:
        print_text(json.dumps(plan.summary.as_json(), indent=2, ensure_ascii=False))
    else:
        print_text(describe_plan(plan.summary, plan.results), end="")


def _print_result(result: RunResult, as_json: bool) -> None:
    if not result.is_first_rank:
        return
    records = result.outcome.records
    if as_json:
        print_text(json.dumps([record.as_json() for record in records], indent=2, ensure_ascii=False))
    elif records:
        from mimbench.report.tables.command import format_records

        print_text(format_records(records), end="")
    for line in _summary(result):
        print_line(line, error=True)


def _summary(result: RunResult) -> Iterator[str]:
    """Where the files are, what failed, how many cells there were, and which older records are outdated."""
    outcome, results = result.outcome, result.results
    artifacts = {path: name for record in outcome.records for name, path in record.artifacts.items()}
    if len(artifacts) > LISTED_FILES:
        yield f"{len(artifacts)} artifacts: {results / 'artifacts'}"
    else:
        for path, name in artifacts.items():
            yield f"{name}: {results / path}"
    if outcome.records:
        yield f"records: {results / 'records'}"
    labels_by_reason: dict[str, list[str]] = {}
    for cell, reason in outcome.failures:
        labels_by_reason.setdefault(reason, []).append(cell.label)
    for reason, labels in labels_by_reason.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"failed: {labels[0]}{more}: {reason}"
    done, failed = len(outcome.records), len(outcome.failures)
    if done + failed > 1:
        yield f"{done + failed} cells: {done - outcome.before} new, {outcome.before} already recorded, {failed} failed"
    if failed:
        yield f"failures: {results / 'failures'}; the same command runs only these cells again"
    if result.outdated:
        count = f"{len(result.outdated)} other record{'s' * (len(result.outdated) > 1)}"
        yield (
            f"{count} of the replaced weights, such as {result.outdated[0]}: run the same tasks with --fresh, or "
            "delete them"
        )


@contextmanager
def _one_line_when_stopped(fresh: bool, seconds: float | None) -> Iterator[None]:
    """End a run with one line on a signal or a time limit. What it leaves behind is complete, or is resumed next time.

    Args:
        fresh: the command replaces existing results, so that it starts again from the beginning each time.
        seconds: the time limit; None: none.
    """
    from mimbench.engine.stopping import stop_at_once

    try:
        with stop_at_once(seconds):
            yield
    except Interrupted as stop:
        state = str(stop) or "finished pretrainings and records are kept, and the interrupted one starts again"
        again = "With --fresh the same command starts over" if fresh else "The same command continues from there"
        print_text(f"mimbench: stopped by {stop.cause}; {state}. {again}.", error=True)
        raise typer.Exit(stop.exit_code) from None
