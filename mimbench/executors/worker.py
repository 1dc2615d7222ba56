"""A worker: what each job of a submission runs. `python -m mimbench.executors.worker FOLDER NUMBER`."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mimbench.engine.stopping import stop_at_once
from mimbench.errors import Interrupted, LeaseLost, MimbenchError
from mimbench.executors.worker_note import WorkerNote, start_note, write_note
from mimbench.lean_imports import install
from mimbench.text import print_any_text, print_line

if TYPE_CHECKING:
    from mimbench.contract.executor import Executor
    from mimbench.executors.submission import Submission


def work(folder: Path, index: int, job: str) -> int:
    """Run what a submission asks for, with others that do the same, and note how it ended.

    Args:
        folder: of the submission.
        index: number of the worker.
        job: its name for the executor.

    Returns:
        The exit code, as `mimbench run` has it.
    """
    print_any_text()
    install()
    return _Worker(folder, start_note(folder, index, job, os.getpid())).run()


class _Worker:
    """Its errors are one line in the log and in the note, as those of a command on the terminal."""

    def __init__(self, folder: Path, note: WorkerNote) -> None:
        self.folder, self.note = folder, note
        self.is_first_rank = os.environ.get("RANK", "0") == "0"
        self.executor: Executor | None = None

    def run(self) -> int:
        self._write()
        try:
            # The imports take seconds. Signals are handled once they are done and there is something to be saved.
            from mimbench.executors.submission import read_submission

            submission = read_submission(self.folder)
            self.executor = submission.load_executor()
            with stop_at_once():
                has_failures = _execute(submission)
        except Interrupted as stop:
            self._end_by(stop)
        except LeaseLost as error:
            self._end("stopped", str(error), error.exit_code)
        except MimbenchError as error:
            self._end("refused", str(error), error.exit_code)
        except Exception as error:
            self._end("refused", f"{type(error).__name__}: {' '.join(str(error).split())}", 1)
            raise
        else:
            self._end("finished", "", 1 if has_failures else 0)
        return self.note.exit_code

    def _end_by(self, stop: Interrupted) -> None:
        """Note what stopped the worker, and put its job into the queue again if the signal announces its time limit."""
        message = f"stopped by {stop.cause}; {str(stop) or 'finished pretrainings and records stay'}"
        if stop.signal != signal.SIGUSR1 or self.executor is None:
            self._end("stopped", message, stop.exit_code)
        elif not self.is_first_rank:
            # An exit code other than 0 ends the first rank too (srun), which has yet to put the job into the queue.
            self._end("stopped", message, 0)
        else:
            # To put a job into the queue again ends it. So this is noted before, and SIGTERM waits until it is done.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._end("requeued", message, stop.exit_code)
            if not self.executor.requeue():
                self.note = replace(self.note, state="stopped")
                self._write()

    def _end(self, state: Literal["finished", "requeued", "stopped", "refused"], message: str, exit_code: int) -> None:
        if message:
            print_line(f"mimbench: {message}", error=True)
        self.note = replace(self.note, state=state, message=message, exit_code=exit_code)
        self._write()

    def _write(self) -> None:
        if self.is_first_rank:
            write_note(self.folder, self.note)


def _execute(submission: Submission) -> bool:
    """Run what a submission asks for. Returns whether cells have failed."""
    from mimbench.harness.run import execute
    from mimbench.plugin_file import add_plugin_file

    os.chdir(submission.directory)
    sys.argv = ["mimbench", *submission.arguments]  # records hold the command
    for path in submission.plugins:
        add_plugin_file(Path(path))
    result = execute(submission.run_options(), submission.note_plan)
    return bool(result.outcome.failures)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else sys.argv[2]))
