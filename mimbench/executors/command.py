"""`mimbench run --executor NAME`: hands a run to workers, or follows those that it was handed to before."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mimbench.contract.executor import Executor
from mimbench.engine.device import device_name
from mimbench.engine.progress import print_line
from mimbench.errors import InputError, Interrupted
from mimbench.executors.choice import TABLE, choose_executor
from mimbench.executors.follow import Followed, Follower
from mimbench.executors.submission import Submission, new_submission, read_submissions
from mimbench.harness.run import PlannedRun, RunOptions, plan_run
from mimbench.recipe.document import parse_value
from mimbench.recipe.grid_file import read_grid
from mimbench.store.store import Store


@dataclass(frozen=True)
class ExecutorOptions:
    """Which executor a command asks for, and what it says about it."""

    name: str
    jobs: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of --set executor.KEY=VALUE, by key."""


def split_settings(assignments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Assignments of --set without those of the executor, and those by key: "executor.nodes=2" is {"nodes": 2}."""
    prefix = f"{TABLE}."
    settings: dict[str, Any] = {}
    for assignment in assignments:
        if assignment.strip().startswith(prefix):
            path, separator, text = assignment.partition("=")
            if not separator:
                raise InputError(f"--set {assignment!r} has no '='; write it as --set {TABLE}.key=value")
            settings[path.strip().removeprefix(prefix)] = parse_value(text.strip())
    return [one for one in assignments if not one.strip().startswith(prefix)], settings


def resolve_executor(options: RunOptions, chosen: ExecutorOptions) -> Executor:
    """The executor with all its options.

    Raises:
        InputError: it is unknown, an option is wrong, or the run cannot be shared by workers.
    """
    if options.fresh:
        raise InputError(
            "--fresh with --executor: each worker would make everything again; delete the records and checkpoints, or "
            "choose another folder with --results DIR"
        )
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--executor under torchrun: it starts all processes itself; run the command once, by itself")
    grid = read_grid(options.grid).executor if options.grid else {}
    return choose_executor(chosen.name, chosen.jobs, chosen.settings, grid)


def run_by_workers(
    options: RunOptions, chosen: ExecutorOptions, plugins: Sequence[str], arguments: Sequence[str]
) -> Followed:
    """Submit a run, or find the workers of the same run, and follow them.

    Args:
        plugins: files of --plugin.
        arguments: of the command.

    Raises:
        InputError: an option or setting that cannot be used, or a scheduler that does not accept the jobs. Nothing runs
            then.
    """
    executor = resolve_executor(options, chosen)
    executor.check(options.device)
    # This process only plans. Its machine, such as a login node, may have no GPU.
    with plan_run(replace(options, device="auto" if options.device == "cuda" else options.device)) as run:
        submission = new_submission(run.results, run.request, run.cells, options, executor, plugins, arguments)
        submission, executor = _submit_once(run, submission, executor)
        follower = Follower(run.results, submission, executor, run.cells, run.console, device_name(run.device))
        try:
            return follower.run()
        except Interrupted as stop:
            cancel = executor.cancel_command(submission.workers())
            raise Interrupted(stop.signal, f"the workers go on, and `{cancel}` ends them") from None


def _submit_once(run: PlannedRun, submission: Submission, executor: Executor) -> tuple[Submission, Executor]:
    """Start workers, unless all cells are recorded, or the same request has some already."""
    store = Store(run.results)

    def say(text: str) -> None:
        print_line(run.console, text)

    what = f"submitting {submission.name}"
    with store.lease(f"submission-{submission.key}", what, lambda: say("waiting: another process submits this run")):
        if all(store.record_path(cell.record_id).exists() for cell in run.cells):
            say("all cells are recorded; no worker is started")
            return submission, executor
        for other in read_submissions(run.results):
            if other.key == submission.key and (jobs := other.load_executor().jobs(other.workers())):
                say(f"following {len(jobs)} worker{'s' * (len(jobs) > 1)} of {other.folder}")
                return other, other.load_executor()
        submission.save()
        try:
            submission = replace(submission, jobs=executor.submit(submission.workers()))
        except Interrupted as stop:  # sbatch may have queued the job, which needs the folder
            state = "workers may have been submitted: the same command follows them"
            if cancel := executor.cancel_command(submission.workers()):
                state += f", and `{cancel}` ends them"
            raise Interrupted(stop.signal, state) from None
        except Exception:
            submission.discard()
            raise
        submission.save()
    say(f"submitted: {len(submission.jobs)} worker{'s' * (len(submission.jobs) > 1)}, logs in {submission.folder}")
    say(f"to end them: {executor.cancel_command(submission.workers())}")
    return submission, executor
