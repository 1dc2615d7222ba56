"""`mimbench run`: plan, execute, print."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mimbench.data import default_cache
from mimbench.distributed import get_rank
from mimbench.engine.device import device_name, pick_device
from mimbench.engine.progress import Screen, say
from mimbench.engine.ranks import joined
from mimbench.errors import InputError
from mimbench.harness.planning.cells import Cell, Request
from mimbench.harness.planning.checkpoints import find_checkpoint, method_of
from mimbench.harness.planning.dryrun import code_changes, describe, standing
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.scheduler import Grid, Outcome
from mimbench.harness.running.trainer import Harness
from mimbench.recipe import DEFAULT_RECIPE
from mimbench.recipe.grid_file import GridFile, read_grid
from mimbench.store import DEFAULT_RESULTS
from mimbench.store.reading import record_files
from mimbench.store.sealing import DAMAGE
from mimbench.store.store import Store
from mimbench.text import print_text

LISTED_FILES = 10
"""Pictures and files of records that are named one by one; of more, only the folder is."""


@dataclass(frozen=True)
class Asked(GridFile):
    """What the command line says: all that a grid file may, and more."""

    grid: Path | None = None
    checkpoint: str | None = None
    device: str = "auto"
    fresh: bool = False
    """Pretrain and measure anew what is there already."""


def run_command(asked: Asked, *, dry: bool = False, as_json: bool = False) -> int:
    """Run what is asked for, or with `dry` say what that would be.

    Exit code 0 where every cell has a record, 1 where one failed.
    """
    _hush()
    device = pick_device(asked.device)
    file = read_grid(asked.grid) if asked.grid else GridFile()
    results = asked.results or file.results or DEFAULT_RESULTS
    if results.exists() and not results.is_dir():
        raise InputError(f"--results {results} is a file, not a folder; choose another")
    request = _request(asked, file, results)
    with joined(device):
        console = Screen(stderr=True, quiet=get_rank() > 0)
        with redirect_stdout(sys.stderr):  # standard output is for the result alone, and libraries print
            cells = plan(request, device, default_cache())
            datasets = [dataset for cell in cells for dataset in (cell.pretraining.dataset, cell.dataset)]
            for note in dict.fromkeys(note for dataset in datasets for note in dataset.notes):
                say(console, note)
            if not dry:  # only now: a command that is refused leaves no folder behind
                outcome = Grid(Harness(Store(results), device, console, asked.fresh), request, cells).run()
        if get_rank() == 0:
            if dry:
                _print_plan(console, cells, results, device, as_json, asked.fresh)
                return 0
            _print_outcome(console, results, outcome, as_json)
            if asked.fresh:
                for line in _outdated(results, outcome):
                    say(console, line)
    return 1 if outcome.failures else 0


def _request(asked: Asked, file: GridFile, results: Path) -> Request:
    """The grid file with the command line over it; a path that is set there is no longer varied."""
    for where, one in (("the command line", asked), (f"grid {asked.grid}", file)):
        both = sorted(set(one.settings) & set(one.variations))
        if both:
            raise InputError(f"{both[0]} is both set and varied in {where}; leave one of the two out")
    varied = {path: values for path, values in file.variations.items() if path not in asked.settings}
    methods = _first(asked.methods, file.methods, [])
    given = find_checkpoint(results, asked.checkpoint) if asked.checkpoint is not None else None
    return Request(
        method_of(given, methods) if given else methods,
        _first(asked.tasks, file.tasks, []),
        _first(asked.recipe, file.recipe, DEFAULT_RECIPE),
        _first(asked.seeds, file.seeds, [0]),
        {**file.settings, **asked.settings},
        {**varied, **asked.variations},
        given,
    )


def _first(*choices: Any) -> Any:
    return next(choice for choice in choices if choice is not None)


def _print_plan(
    console: Console, cells: Sequence[Cell], results: Path, device: torch.device, as_json: bool, fresh: bool
) -> None:
    found = standing(cells, results, device_name(device), fresh=fresh)
    for line in () if fresh else code_changes(found, results):
        say(console, line)
    if as_json:
        print_text(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        print_text(describe(found, results), end="")


def _print_outcome(console: Console, results: Path, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print_text(json.dumps([record.as_json() for record in outcome.records], indent=2, ensure_ascii=False))
    elif outcome.records:
        from mimbench.report.tables.command import text_of

        print_text(text_of(outcome.records), end="")
    for line in _what_was_left(results, outcome):
        say(console, line)


def _what_was_left(results: Path, outcome: Outcome) -> list[str]:
    files = {path: name for record in outcome.records for name, path in record.artifacts.items()}
    lines = [f"{name}: {results / path}" for path, name in files.items()]
    if len(files) > LISTED_FILES:
        lines = [f"{len(files)} pictures and files: {results / 'artifacts'}"]
    if outcome.records:
        lines.append(f"records: {results / 'records'}")
    reasons: dict[str, list[str]] = {}
    for cell, reason in outcome.failures:
        reasons.setdefault(reason, []).append(cell.label)
    for reason, labels in reasons.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        lines.append(f"failed: {labels[0]}{more}: {reason}")
    done, failed = len(outcome.records), len(outcome.failures)
    if done + failed > 1:
        lines.append(f"cells: {done + failed}, {outcome.before} recorded before, {done - outcome.before} now")
    if failed:
        lines.append(f"{failed} failed ({results / 'failures'}); the same command runs only those again")
    return lines


def _outdated(results: Path, outcome: Outcome) -> list[str]:
    """A line if other records stand on weights that this run has replaced."""
    weights = {record.checkpoint.fingerprint: record.checkpoint.weights_sha256 for record in outcome.records}
    outdated = []
    for path in record_files(results):
        with suppress(*DAMAGE):
            checkpoint = json.loads(path.read_text(encoding="utf-8"))["checkpoint"]
            if weights.get(checkpoint["fingerprint"], checkpoint["weights_sha256"]) != checkpoint["weights_sha256"]:
                outdated.append(path.stem)
    if not outdated:
        return []
    count = f"{len(outdated)} other record{'s' * (len(outdated) > 1)}"
    return [f"{count} of the old weights, such as {outdated[0]}: run the same tasks with --fresh, or delete them"]


def _hush() -> None:
    """Libraries' chatter stays off the screen; MIMBENCH_DEBUG=1 brings it back."""
    if not os.environ.get("MIMBENCH_DEBUG"):
        warnings.filterwarnings("ignore")
