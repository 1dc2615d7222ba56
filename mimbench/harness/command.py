"""`mimbench run`: plan, execute, print."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console

from mimbench.data import default_cache
from mimbench.engine.device import pick_device
from mimbench.harness.execute import Harness, Outcome
from mimbench.harness.given import find_checkpoint, method_of
from mimbench.harness.plan import Request, plan
from mimbench.report.table import comparison, render
from mimbench.store.store import Store


def run_command(
    *,
    methods: Sequence[str],
    tasks: Sequence[str],
    recipe: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    variations: Mapping[str, Sequence[Any]],
    results: Path,
    device: str,
    as_json: bool,
    checkpoint: str | None = None,
) -> int:
    """Run a request; exit code 0 where every cell has a record, 1 where one failed."""
    _hush()
    console = Console(stderr=True)
    chosen = pick_device(device)
    store = Store(results)
    given = find_checkpoint(results, checkpoint) if checkpoint is not None else None
    methods = method_of(given, methods) if given else methods
    request = Request(methods, tasks, recipe, seeds, settings, variations, given)
    with redirect_stdout(sys.stderr):  # standard output is for the result alone, and libraries print
        cells = plan(request, chosen, default_cache())
        outcome = Harness(store, chosen, console).run(request, cells)
    if as_json:
        json.dump([record.as_json() for record in outcome.records], sys.stdout, indent=2, ensure_ascii=False)
        print()
    elif outcome.records:
        print(render(comparison(outcome.records), "text"), end="")
    _say_what_was_left(console, results, outcome)
    return 1 if outcome.failures else 0


def _say_what_was_left(console: Console, results: Path, outcome: Outcome) -> None:
    for record in outcome.records:
        for name, path in record.artifacts.items():
            console.print(f"{name}: {results / path}", highlight=False, markup=False, soft_wrap=True)
    if outcome.records:
        console.print(f"records: {results / 'records'}", highlight=False, markup=False, soft_wrap=True)
    for label, reason in outcome.failures:
        console.print(f"failed: {label}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if outcome.failures:
        console.print(
            f"{len(outcome.failures)} failed; the same command runs only those again", highlight=False, markup=False
        )


def _hush() -> None:
    """Libraries' chatter stays off the screen; MIMBENCH_DEBUG=1 brings it back."""
    if not os.environ.get("MIMBENCH_DEBUG"):
        warnings.filterwarnings("ignore")
