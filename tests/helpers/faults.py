"""Commands in child processes that are killed at chosen moments, and what results folders must agree in afterwards."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.forked import CONTEXT, Forked

OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link")
"""Audit events of operations on files, besides opening one to write it."""


class Command:
    """A mimbench command in a process of its own; its output goes to a file."""

    def __init__(
        self,
        arguments: Sequence[str],
        results: Path,
        log: Path,
        *,
        kill_at: int = 0,
        appends_results: bool = True,
        **environment: str,
    ) -> None:
        """
        Args:
            kill_at: number of the operation on files of the results folder before which it is killed; 0: none.
            appends_results: whether `--results` is one of its arguments.
        """
        self.log, self._count = log, CONTEXT.Value("i", 0)
        more = ["--results", str(results)] if appends_results else []
        count = functools.partial(_count_operations, str(results), kill_at, self._count)
        self.process = Forked(Path.cwd(), log, log, (*arguments, *more), environment, count).process

    @property
    def operations(self) -> int:
        """How many operations on files of the results folder it has made."""
        return self._count.value

    def wait(self, seconds: float = 300) -> int | None:
        """The exit code (negative: a signal's number), or None if it still runs."""
        self.process.join(seconds)
        return self.process.exitcode

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def run(arguments: Sequence[str], results: Path, log: Path, **environment: str) -> Command:
    """Run a command to its end, which has to be a good one."""
    command = Command(arguments, results, log, **environment)
    assert command.wait() == 0, log.read_text()
    return command


def _count_operations(root: str, kill_at: int, count: Any) -> None:
    sys.addaudithook(lambda event, values: _count_operation(root, event, values, kill_at, count))


def _count_operation(root: str, event: str, values: Sequence[Any], kill_at: int, count: Any) -> None:
    if event == "open":
        path, mode, flags = values
        is_write = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
        if not is_write:
            return
    elif event not in OPERATIONS:
        return
    path = values[0]
    # Leases count their signs of life by renaming, as many as a process has time for.
    if not isinstance(path, (str, os.PathLike)) or not str(path).startswith(root) or ".lease/" in str(path):
        return
    count.value += 1
    if count.value == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def state_of(root: Path) -> dict[str, str]:
    """What must be the same, however often a run was killed: each file's content, without times and costs."""
    state = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".json":
            body = json.loads(path.read_text())
            for key in ("cost", "provenance", "sha256" if "seal" not in body else "", "seal", "recipe_passed"):
                body.pop(key, None)
            if "metrics" in body:
                body["checkpoint"].pop("cost")
            state[name] = json.dumps(body, sort_keys=True)
        else:
            state[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return state


def differences(expected: dict[str, str], root: Path) -> list[str]:
    """Files of a results folder that are missing, too many, or other than expected."""
    actual = state_of(root)
    return [
        f"{name}: {'missing' if name not in actual else 'too many' if name not in expected else 'other'}"
        for name in sorted({*expected, *actual})
        if expected.get(name) != actual.get(name)
    ]
