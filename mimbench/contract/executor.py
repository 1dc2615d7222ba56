"""What starts the workers of a run: on this machine, or by a cluster's scheduler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from mimbench.contract.config import Config


@dataclass(frozen=True)
class Workers:
    """Identical processes to start, which share one results folder and take cells from it."""

    name: str
    """Names them all in the scheduler's queue; no other submission has it."""
    folder: Path
    """For their logs, and for files of the executor. Absolute, and the same on all machines."""
    directory: Path
    """The working folder to start them in, from which relative paths of the request count."""
    command: Sequence[str]
    """Of one worker, with its number from 0 still to be appended."""
    device: str
    """What --device says: auto, cpu or cuda."""


def last_lines(path: Path) -> list[str]:
    """The last 8 kB of a text file in lines, without blanks at their ends; [] if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 8192))
            return [line.strip() for line in stream.read().decode(errors="replace").splitlines()]
    except OSError:
        return []


class Executor(ABC):
    """Starts workers and follows them. An entry point of the group `mimbench.executors` makes it known by its name.

    It keeps no state of its own: each method finds the workers by their name or in their folder, since the process that
    submitted them may have ended.
    """

    name: ClassVar[str]
    poll_seconds: ClassVar[float] = 15.0
    """Between two calls of `jobs`."""

    class Config(Config):
        """Options, from [executor] of a grid or user file and from --set executor.KEY=VALUE."""

        jobs: int | None = Field(None, ge=1, le=10_000)
        """Number of workers. None: as many as the executor chooses."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def check(self, device: str) -> None:
        """Raise InputError if workers cannot be started here. Called before anything is written.

        device: of the workers, as in `Workers`.
        """

    @abstractmethod
    def submit(self, workers: Workers) -> list[str]:
        """Start the workers; returns one name per worker, such as its job's id. They go on when this process ends.

        Raises:
            InputError: the scheduler refuses them.
        """

    @abstractmethod
    def jobs(self, workers: Workers) -> Mapping[str, str]:
        """The workers that have not ended: name -> its state in words, such as "running on node7".

        Raises:
            RunError: the scheduler does not answer now.
        """

    @abstractmethod
    def log(self, workers: Workers, job: str) -> Path:
        """The file with what a worker prints."""

    def last_words(self, workers: Workers, job: str) -> str:
        """Why a worker may have ended: the last line of its log that names an error, or its last line; "" if none."""
        lines = [line for line in last_lines(self.log(workers, job)) if line]
        return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")

    @abstractmethod
    def cancel_command(self, workers: Workers) -> str:
        """The shell command that ends all workers."""

    def requeue(self) -> bool:
        """Put this worker's job into the queue again; False: it was not put there.

        Called in the worker when SIGUSR1 has announced the end of its time, and its state is saved.
        """
        return False
