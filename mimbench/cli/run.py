"""`mimbench run`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    executor_names,
    flag,
)
from mimbench.cli.run_options import run_options
from mimbench.errors import InputError, Interrupted
from mimbench.options import parse_duration
from mimbench.text import list_first, print_line, print_text

if TYPE_CHECKING:
    from mimbench.executors.follow import Followed
    from mimbench.harness.run import Preview, RunResult

LISTED_FILES = 10
"""Artifacts of records that are listed one by one. If there are more, only their folder is printed."""


def run(
    method: RunMethods = None,
    task: RunTasks = None,
    recipe: RunRecipe = None,
    seeds: RunSeeds = None,
    set_: SetOption = None,
    vary: RunVariations = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="A TOML file with all of these options; flags override it.")
    ] = None,
    checkpoint: RunCheckpoint = None,
    plugin: PluginOption = None,
    results: OptionalResults = None,
    device: DeviceOption = "auto",
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            help="Let workers run it: local, slurm or one of a package. Options: --set executor.KEY=VALUE.",
            autocompletion=executor_names,
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Number of workers of --executor.", min=1)] = None,
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
    the same time on one results folder and share the work. With --executor they are started here, and go on if this
    command ends; the same command follows them again.
    """
    if sys.stderr.isatty():  # the imports below take seconds
        print_line("loading", error=True)
    from mimbench.executors.command import ExecutorOptions, resolve_executor, run_by_workers, split_settings
    from mimbench.harness.run import execute, preview
    from mimbench.registry import added_files

    seconds = None if time_limit is None else parse_duration(time_limit, "--time-limit")
    with _one_line_when_stopped(fresh, seconds):
        set_, of_executor = split_settings(set_ or [])
        options = run_options(method, task, recipe, seeds, set_, vary, results, grid, checkpoint, device, fresh)
        if executor is None and (jobs is not None or of_executor):
            raise InputError(f"{'--jobs' if jobs else '--set executor.KEY'} is for --executor; add --executor local")
        if executor and time_limit is not None:
            raise InputError(
                "--time-limit with --executor: workers have the limit of their jobs, such as executor.time"
            )
        chosen = ExecutorOptions(executor, jobs, of_executor) if executor else None
        if dry_run:
            if chosen:
                resolve_executor(options, chosen)
            _print_preview(preview(options), json_)
        elif chosen:
            of_workers = run_by_workers(options, chosen, added_files(), sys.argv[1:])
            _print_result(of_workers, json_)
            raise typer.Exit(of_workers.exit_code)
        else:
            result = execute(options)
            if result.is_first_rank:
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


def _print_result(result: RunResult | Followed, as_json: bool) -> None:
    records = result.records
    if as_json:
        print_text(json.dumps([record.as_json() for record in records], indent=2, ensure_ascii=False))
    elif records:
        from mimbench.report.tables.command import format_records

        print_text(format_records(records), end="")
    for line in _summary(result):
        print_line(line, error=True)


def _summary(result: RunResult | Followed) -> Iterator[str]:
    """Where the files are, what failed, how many cells there were, which older records are outdated, what is next."""
    results = result.results
    artifacts = {path: name for record in result.records for name, path in record.artifacts.items()}
    if len(artifacts) > LISTED_FILES:
        yield f"{len(artifacts)} artifacts: {results / 'artifacts'}"
    else:
        for path, name in artifacts.items():
            yield f"{name}: {results / path}"
    if result.records:
        yield f"records: {results / 'records'}"
    labels_by_reason: dict[str, list[str]] = {}
    for label, reason in result.failures:
        labels_by_reason.setdefault(reason, []).append(label)
    for reason, labels in labels_by_reason.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"failed: {labels[0]}{more}: {reason}"
    done, failed, left = len(result.records), len(result.failures), len(result.left)
    if done + failed + left > 1:
        not_run = f", {left} not run" if left else ""
        yield (
            f"{done + failed + left} cells: {done - result.before} new, {result.before} already recorded, "
            f"{failed} failed{not_run}"
        )
    if failed:
        yield f"failures: {results / 'failures'}; the same command runs only these cells again"
    if left:
        yield f"not run: {list_first(result.left)}: no worker is left ({result.why_left}); the same command runs them"
    if result.outdated:
        count = f"{len(result.outdated)} other record{'s' * (len(result.outdated) > 1)}"
        yield (
            f"{count} of the replaced weights, such as {result.outdated[0]}: run the same tasks with --fresh, or "
            "delete them"
        )
    if result.records and not (failed or left):
        yield f"next: mimbench report --results {shlex.quote(str(results))} --output page"


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
