"""The command in a process of its own that is forked from one with all imports behind it, which saves seconds.

That process is `multiprocessing`'s forkserver; conftest.py says what it imports.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")


class Forked:
    """`mimbench ARGUMENTS` in a folder. Its output goes to the files `out` and `err`."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        err: Path,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            environment: variables that differ from this process's.
            prepare: is called in the new process before the command. It has to be picklable.
        """
        self.out, self.err = out, err
        variables = {**os.environ, **environment}
        work = (folder, out, err, arguments, variables, prepare)
        self.process = CONTEXT.Process(target=_run, args=work)
        self.process.start()

    def wait(self, seconds: float = 240) -> int:
        """The exit code; negative: a signal's number. A command that still runs is killed, and the test fails."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        assert code is not None, f"ran for more than {seconds:g} s: {self.err.read_text()}"
        return code


def _run(
    folder: Path,
    out: Path,
    err: Path,
    arguments: tuple[str, ...],
    variables: Mapping[str, str],
    prepare: Callable[[], None] | None,
) -> None:
    import torch

    from mimbench.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = [str(folder), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    for number, path in ((1, out), (2, err)):
        stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    if prepare is not None:
        prepare()
    sys.argv = ["mimbench", *arguments]
    main()
