"""`mimbench run` without its printing: options to a plan, and the plan carried out."""

from __future__ import annotations

import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from mimbench.contract import TrainConfig
from mimbench.contract.validation import NONE
from mimbench.data import default_cache
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.device import device_name, pick_device
from mimbench.engine.progress import print_line
from mimbench.engine.ranks import on_first_rank, process_group
from mimbench.errors import InputError
from mimbench.harness.forecast.auto_batch import BatchChooser
from mimbench.harness.planning.cells import Cell, Request
from mimbench.harness.planning.checkpoints import method_of
from mimbench.harness.planning.dryrun import PlanSummary, code_changes, summarize_plan
from mimbench.harness.planning.plan import plan
from mimbench.harness.published_encoders import keep_checkpoint, open_checkpoint
from mimbench.harness.running.scheduler import Outcome, Scheduler
from mimbench.harness.running.session import Session
from mimbench.lean_imports import end_of_imports, keep_imports
from mimbench.recipe.document import covers, other_unit, overlap
from mimbench.recipe.grid_file import GridFile, read_grid
from mimbench.recipe.needs import default_recipe
from mimbench.store import DEFAULT_RESULTS
from mimbench.store.reading import record_files
from mimbench.store.record import Record
from mimbench.store.sealing import DAMAGE
from mimbench.store.store import Store, StoredCheckpoint


@dataclass(frozen=True)
class RunOptions(GridFile):
    """The options of `mimbench run`: all that a grid file can set, and more."""

    grid: Path | None = None
    checkpoint: str | None = None
    device: str = "auto"
    fresh: bool = False
    """Pretrain and measure again what exists already."""


@dataclass(frozen=True)
class Preview:
    """What a run would do."""

    results: Path
    summary: PlanSummary
    code_changes: Sequence[str]
    """One line per plugin whose code has changed since it made something that would be reused."""


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    results: Path
    outcome: Outcome
    outdated: Sequence[str]
    """Ids of other records that were measured on weights that this run replaced."""
    is_first_rank: bool
    left: Sequence[str] = ()
    """Labels of cells that were not run; none, since a run that ends has tried all."""
    why_left: str = ""

    @property
    def records(self) -> Sequence[Record]:
        return self.outcome.records

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Label and reason of each cell that failed."""
        return [(cell.label, reason) for cell, reason in self.outcome.failures]

    @property
    def before(self) -> int:
        """How many of the records existed before the run."""
        return self.outcome.before


@dataclass(frozen=True)
class PlannedRun:
    """A run that can begin."""

    results: Path
    device: torch.device
    console: Console
    request: Request
    cells: Sequence[Cell]
    scratch: Path
    """A folder that is deleted at the end. It holds a published encoder that the results folder does not have yet."""


def preview(options: RunOptions) -> Preview | None:
    """Plan a run and compare the plan with the results folder; nothing is written. None on other ranks than the first.

    Raises:
        InputError: an option or setting that cannot be used.
    """
    with plan_run(options, may_lack_data=True) as run:
        if get_rank() > 0:
            return None
        summary = summarize_plan(run.cells, run.results, device_name(run.device), fresh=options.fresh)
        changes = [] if options.fresh else code_changes(summary, run.results)
        return Preview(run.results, summary, changes)


def execute(options: RunOptions, check: Callable[[Sequence[Cell]], None] | None = None) -> RunResult:
    """Plan a run and carry it out. Under torchrun, all ranks call this together.

    Progress goes to standard error. A cell that fails does not stop the others: it is listed in the outcome.

    Args:
        check: rank 0 calls it with the planned cells before anything is written. It may raise InputError.

    Raises:
        InputError: an option or setting that cannot be used. Nothing has been written then.
    """
    with plan_run(options) as run:
        _require_processes(run.cells)
        if check:
            on_first_rank(check)(run.cells)
        with redirect_stdout(sys.stderr):
            session = Session(Store(run.results), run.device, run.console, options.fresh)
            outcome = Scheduler(session, run.request, _keep_checkpoint(run, session)).run()
        is_first_rank = get_rank() == 0
        outdated = _outdated(run.results, outcome) if options.fresh and is_first_rank else []
        return RunResult(run.results, outcome, outdated, is_first_rank)


def _keep_checkpoint(run: PlannedRun, session: Session) -> Sequence[Cell]:
    """The cells, with a published encoder that --checkpoint names stored in the results folder."""
    checkpoint = run.request.checkpoint
    if checkpoint is None or not checkpoint.folder.is_relative_to(run.scratch):
        return run.cells

    @on_first_rank
    def keep() -> StoredCheckpoint:
        return keep_checkpoint(
            checkpoint, session.store, lambda: session.say("waiting: another process stores the same encoder")
        )

    stored = keep()
    return [replace(cell, pretraining=replace(cell.pretraining, checkpoint=stored)) for cell in run.cells]


@contextmanager
def plan_run(options: RunOptions, *, may_lack_data: bool = False) -> Iterator[PlannedRun]:
    """The plan, inside the process group that torchrun started. Nothing is written to the results folder.

    Args:
        may_lack_data: plan without the files of datasets that are not here. Such a plan cannot be carried out.

    Raises:
        InputError: an option or setting that cannot be used.
    """
    _silence_libraries()
    device = pick_device(options.device)
    file = read_grid(options.grid) if options.grid else GridFile()
    results = options.results or file.results or DEFAULT_RESULTS
    if results.exists() and not results.is_dir():
        raise InputError(f"--results {results} is a file, not a folder; choose another")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        checkpoint = None
        if options.checkpoint is not None:
            checkpoint = open_checkpoint(options.checkpoint, results, scratch)
        request = _request(options, file, checkpoint)
        stack.enter_context(process_group(device))
        console = Console(stderr=True, quiet=get_rank() > 0)
        # Standard output is for the result alone. Libraries print there, too.
        keep_imports()
        with redirect_stdout(sys.stderr):
            batches = BatchChooser(device, functools.partial(print_line, console))
            cells = plan(request, device, default_cache(), batches, may_lack_data=may_lack_data)
        end_of_imports()
        datasets = [dataset for cell in cells for dataset in (cell.pretraining.dataset, cell.dataset)]
        for note in dict.fromkeys(note for dataset in datasets for note in dataset.notes):
            print_line(console, note)
        yield PlannedRun(results, device, console, request, cells, scratch)


def _request(options: RunOptions, file: GridFile, checkpoint: StoredCheckpoint | None) -> Request:
    """The grid file, overridden by the command line.

    A path that the command line sets is no longer varied. Epochs that it sets replace steps of the file, and the other
    way round.
    """
    for where, source in (("the command line", options), (f"grid {options.grid}", file)):
        both = sorted(set(source.settings) & set(source.variations))
        if both:
            raise InputError(f"{both[0]} is both set and varied in {where}; leave one of the two out")
    chosen = {**options.settings, **options.variations}
    replaced = [other for path, value in chosen.items() if value != NONE and (other := other_unit(path))]
    varied = _not_covered(file.variations, replaced)
    varied = {path: values for path, values in varied.items() if path not in options.settings}
    settings = _not_covered(file.settings, replaced)
    # A length for all methods or tasks stays for the others.
    settings |= {other: NONE for other in replaced if any(overlap(other, path) for path in settings)}
    methods, tasks = _first(options.methods, file.methods, []), _first(options.tasks, file.tasks, [])
    methods = method_of(checkpoint, methods) if checkpoint else methods
    recipe = options.recipe or file.recipe
    return Request(
        methods,
        tasks,
        default_recipe(methods, tasks) if recipe is None else recipe,
        _first(options.seeds, file.seeds, [0]),
        {**settings, **options.settings},
        {**varied, **options.variations},
        checkpoint,
    )


def _not_covered(table: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """What settings at these paths leave of a table of the grid file."""
    return {path: value for path, value in table.items() if not any(covers(upper, path) for upper in paths)}


def _first(*choices: Any) -> Any:
    """The first choice that is not None."""
    return next(choice for choice in choices if choice is not None)


def _require_processes(cells: Sequence[Cell]) -> None:
    """Raise InputError if a training needs more processes than run here. A command that only plans has one."""
    for cell in cells:
        if cell.pretraining.trains:
            cell.pretraining.recipe.pretrain.require_several(get_world_size(), "pretrain")
        train = getattr(cell.task.config, "train", None)
        if isinstance(train, TrainConfig):
            train.require_several(get_world_size(), "task.train")


def _outdated(results: Path, outcome: Outcome) -> list[str]:
    """Ids of records on checkpoints of this run whose weights have another hash than the records note."""
    weights = {record.checkpoint.fingerprint: record.checkpoint.weights_sha256 for record in outcome.records}
    outdated = []
    for path in record_files(results):
        with suppress(*DAMAGE):
            checkpoint = json.loads(path.read_text(encoding="utf-8"))["checkpoint"]
            if weights.get(checkpoint["fingerprint"], checkpoint["weights_sha256"]) != checkpoint["weights_sha256"]:
                outdated.append(path.stem)
    return outdated


def _silence_libraries() -> None:
    """Warnings of libraries stay off the screen, except with MIMBENCH_DEBUG=1."""
    if not os.environ.get("MIMBENCH_DEBUG"):
        warnings.filterwarnings("ignore")
