"""Submissions: what a results folder knows of the runs that were handed to workers.

DIR/jobs/<time>-<key>/submission.json   the request, the executor with its options, the jobs
DIR/jobs/<time>-<key>/plan.json         the cells, as the first worker has planned them
DIR/jobs/<time>-<key>/workers/<n>.json  what became of each worker, written by itself
DIR/jobs/<time>-<key>/*                 logs, and files of the executor

The workers make the plan that counts: what precision "auto" is, for one, depends on the device.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mimbench.contract.executor import Executor, Workers
from mimbench.contract.validation import validate
from mimbench.errors import InputError
from mimbench.executors.choice import TABLE, load_executor
from mimbench.executors.worker_note import now
from mimbench.harness.planning.cells import Cell, Request
from mimbench.harness.run import RunOptions
from mimbench.leases import hold_lease
from mimbench.store.sealing import DAMAGE, fingerprint, write_json

JOBS = "jobs"
"""The folder of all submissions in a results folder."""
_SUBMISSION, _PLAN = "submission.json", "plan.json"


@dataclass(frozen=True)
class PlannedCell:
    """A cell as a worker has planned it."""

    id: str
    label: str
    checkpoint: str
    """Fingerprint of its pretraining."""
    training: str
    """Key of the lease that the training of its pretraining is made under."""
    varied: Mapping[str, Any]


@dataclass(frozen=True)
class Submission:
    """One run that was handed to workers."""

    folder: Path
    key: str
    """Hash of the request: equal requests have equal keys."""
    executor: str
    config: Mapping[str, Any]
    """Options of the executor."""
    options: Mapping[str, Any]
    """The resolved options of the run, which each worker executes."""
    plugins: Sequence[str]
    """Files of --plugin."""
    directory: str
    arguments: Sequence[str]
    """Of the command that submitted it."""
    host: str
    submitted: str
    """ISO 8601, UTC."""
    cells: Sequence[Mapping[str, Any]]
    """As the submitting process has planned them; see `planned`."""
    jobs: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of its workers in the scheduler's queue."""
        return f"mimbench-{self.folder.name}"

    def workers(self) -> Workers:
        command = [sys.executable, "-m", "mimbench.executors.worker", str(self.folder)]
        return Workers(self.name, self.folder, Path(self.directory), command, str(self.options["device"]))

    def load_executor(self) -> Executor:
        """The executor with the options of the submission.

        Raises:
            InputError: it is not installed here.
        """
        kind = load_executor(self.executor)
        return kind(validate(kind.Config, self.config, TABLE))

    def run_options(self) -> RunOptions:
        """What a worker executes."""
        values = {field.name: self.options[field.name] for field in fields(RunOptions) if field.name in self.options}
        return RunOptions(**values | {"results": self.folder.parents[1]})

    def planned(self) -> list[PlannedCell]:
        """The cells as the first worker has planned them; until it has, as the submitting process has."""
        cells: Sequence[Mapping[str, Any]] = self.cells
        with suppress(*DAMAGE):
            cells = json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))["cells"]
        return [PlannedCell(**cell) for cell in cells]

    def note_plan(self, cells: Sequence[Cell]) -> None:
        """Write down the plan of a worker. Raises InputError if another worker has another one."""
        described = [describe_cell(cell) for cell in cells]
        path = self.folder / _PLAN
        with hold_lease(path, "writing the plan"):  # workers start at the same time
            if not path.exists():
                write_json(path, {"cells": described})
        first = [cell.id for cell in self.planned()]
        differing = next((new for new, id_ in zip(described, first, strict=False) if new["id"] != id_), None)
        if differing or len(described) != len(first):
            what = differing["label"] if differing else f"{len(described)} cells, not {len(first)},"
            raise InputError(
                f"this worker would run {what} with other settings than the first worker of {self.folder}: the "
                "recipe, the data or the code has changed since, or the machines have different kinds of GPUs "
                "(set pretrain.precision, or choose one kind with executor.constraint)"
            )

    @property
    def path(self) -> Path:
        """The file that describes it. Its date is that of the submission."""
        return self.folder / _SUBMISSION

    def save(self) -> None:
        body = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "folder"}
        write_json(self.path, body)

    def discard(self) -> None:
        """Remove the folder of a submission that has no workers."""
        shutil.rmtree(self.folder, ignore_errors=True)


def new_submission(
    results: Path,
    request: Request,
    cells: Sequence[Cell],
    options: RunOptions,
    executor: Executor,
    plugins: Sequence[str],
    arguments: Sequence[str],
) -> Submission:
    """Describe a run; nothing is written.

    Args:
        request: what `options` and its grid file come to.
        cells: as this process has planned them.
        plugins: files of --plugin.
        arguments: of the command, for people.
    """
    resolved = {
        **{field.name: getattr(options, field.name) for field in fields(RunOptions)},
        "methods": list(request.methods),
        "tasks": list(request.tasks),
        "recipe": request.recipe,
        "seeds": list(request.seeds),
        "settings": dict(request.settings),
        "grid": None,
        "results": None,
        "variations": {path: list(values) for path, values in request.variations.items()},
        "checkpoint": str(request.checkpoint.folder.resolve()) if request.checkpoint else None,
        "executor": {},
    }
    resolved = json.loads(json.dumps(resolved, default=str))
    files = [str(Path(path).resolve()) for path in plugins]
    key = fingerprint([resolved, files, [cell.record_id for cell in cells]], 8)
    return Submission(
        folder=results.resolve() / JOBS / f"{time.strftime('%Y%m%d-%H%M%S')}-{key}",
        key=key,
        executor=executor.name,
        config=executor.config.model_dump(mode="json"),
        options=resolved,
        plugins=files,
        directory=os.getcwd(),
        arguments=list(arguments),
        host=platform.node(),
        submitted=now(),
        cells=[describe_cell(cell) for cell in cells],
    )


def read_submission(folder: Path) -> Submission:
    """Raises InputError: there is none in this folder, or it is damaged."""
    path = folder / _SUBMISSION
    try:
        return Submission(folder=folder, **json.loads(path.read_text(encoding="utf-8")))
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}); delete {folder}") from error


def read_submissions(results: Path) -> list[Submission]:
    """All submissions of a results folder, the newest first. Damaged ones are left out."""
    return list(_readable(sorted((results.resolve() / JOBS).glob(f"*/{_SUBMISSION}"), reverse=True)))


def _readable(paths: Sequence[Path]) -> Iterator[Submission]:
    for path in paths:
        with suppress(InputError):
            yield read_submission(path.parent)


def describe_cell(cell: Cell) -> dict[str, Any]:
    pretraining = cell.pretraining
    planned = PlannedCell(cell.record_id, cell.label, pretraining.fingerprint, pretraining.training, dict(cell.varied))
    return asdict(planned)
