"""Watches the processes of one run (torchrun): a training ends on all of them within seconds of its end on one.

A rank whose training step fails, or that is killed, leaves the others waiting for its gradients, in code that no signal
and no exception reaches. So a thread of each rank looks every half second whether another one has failed or is gone,
and then ends the process, with that rank's message.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from mimbench.advice import describe_error
from mimbench.errors import LeaseLost
from mimbench.leases import release_all
from mimbench.process_identity import PATTERN, has_ended
from mimbench.text import print_text

EVERY = 0.5
"""Seconds between two looks."""
_CONNECTION_ERRORS = ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError")
"""Of torch.distributed."""
PATIENCE = 5.0
"""Seconds that a training has to end by itself after another rank reported its failure."""


@dataclass(frozen=True)
class Problem:
    """Why a training cannot go on."""

    rank: int
    """Whose problem it is."""
    text: str
    is_dead: bool
    """Its process is gone. Otherwise its training step failed."""


class Watch:
    """Looks after the other ranks while this one trains."""

    def __init__(self, store: Any, rank: int, processes: Sequence[str]) -> None:
        """store: of torch.distributed. processes: the names of all ranks (`mimbench.process_identity`)."""
        self.store, self.rank = store, rank
        self.processes = [match for name in processes if (match := re.fullmatch(PATTERN, name))]
        """Of those on other nodes, or in other containers, this one does not see whether they have ended."""
        self.trainings = 0
        """How many trainings have begun; all ranks begin the same ones."""
        self.is_training = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10 * EVERY)

    def find_dead(self) -> int | None:
        """The first rank whose process is gone; None if all that this one sees are there."""
        return next((rank for rank, process in enumerate(self.processes) if has_ended(process)), None)

    def report(self, problem: Problem) -> None:
        """Let all ranks know why this training cannot go on."""
        self.store.set(self._key, json.dumps(asdict(problem)))

    def find_problem(self) -> Problem | None:
        """What a rank has reported in this training, else a rank that is gone."""
        try:
            if self.store.check([self._key]):
                return Problem(**json.loads(self.store.get(self._key)))
        except Exception:  # the store was in a process that is gone
            return describe_dead(0)
        dead = self.find_dead()
        return None if dead is None else describe_dead(dead)

    def forget_problem(self) -> None:
        """What was reported so far does not count any more. All ranks call it together."""
        self.trainings += 1

    def _look(self) -> None:
        seen: float | None = None
        while not self._over.wait(EVERY):
            problem = self.find_problem() if self.is_training else None
            if problem is None:
                seen = None
                continue
            seen = time.monotonic() if seen is None else seen
            if time.monotonic() - seen > PATIENCE:
                with suppress(Exception):  # for the ranks of other nodes
                    self.report(problem)
                if self.rank == (0 if problem.rank else 1):
                    say(problem.text)
                note_failure(problem)
                release_all()
                os._exit(1)

    @property
    def _key(self) -> str:
        return f"mimbench/failed/{self.trainings}"


_watch: Watch | None = None
_note: Callable[[str], None] | None = None


@contextmanager
def noting_failure(note: Callable[[str], None]) -> Iterator[None]:
    """Within this context, rank 0 calls `note` with the reason if a training step fails on one rank and ends the run.

    It may be called by another thread, while this one waits for the other ranks.
    """
    global _note
    before, _note = _note, note
    try:
        yield
    finally:
        _note = before


def note_failure(problem: Problem) -> None:
    """Write down the problem as `noting_failure` has it, on rank 0. That a process is gone says nothing of its work."""
    if _watch is not None and _watch.rank == 0 and _note is not None and not problem.is_dead:
        with suppress(Exception):
            _note(problem.text)


@contextmanager
def watching(store: Any, rank: int, processes: Sequence[str]) -> Iterator[None]:
    """Watch the other ranks within this context. See `Watch`."""
    global _watch
    _watch = Watch(store.clone(), rank, processes)
    try:
        yield
    finally:
        _watch.stop()
        _watch = None


@contextmanager
def training_together() -> Iterator[None]:
    """Within this context the ranks wait for each other in every step, so that none goes on without the others."""
    watch = _watch
    if watch is None:
        yield
        return
    watch.trainings += 1
    watch.is_training = True
    try:
        yield
    except Exception as error:
        if not _is_of_connection(error):
            problem = Problem(watch.rank, f"rank {watch.rank} failed: {describe_error(error)}", is_dead=False)
            with suppress(Exception):
                watch.report(problem)
            if not isinstance(error, LeaseLost):
                note_failure(problem)  # now: the launcher ends this process as soon as another one gives up
        raise
    finally:
        watch.is_training = False


def _is_of_connection(error: BaseException) -> bool:
    """Whether the error only says that another rank does not answer."""
    return type(error).__name__ in _CONNECTION_ERRORS or "gloo/transport" in str(error)


def give_up(error: BaseException) -> NoReturn:
    """End this process, since others do not answer. error: of this rank."""
    if _watch is None:
        raise error
    end = time.monotonic() + 4 * EVERY
    while _watch.find_dead() is None and time.monotonic() < end:
        time.sleep(EVERY / 5)
    problem = _watch.find_problem() if _is_of_connection(error) else None
    say(problem.text if problem else f"rank {_watch.rank} failed: {describe_error(error)}")
    sys.exit(1)


def describe_dead(rank: int) -> Problem:
    return Problem(rank, f"rank {rank} ended unexpectedly; it was killed, perhaps because memory ran out", is_dead=True)


def forget_problem() -> None:
    """All ranks know of an error, and go on to other work. They call it together."""
    if _watch is not None:
        _watch.forget_problem()


def say(problem: str) -> None:
    print_text(f"mimbench: {problem} (all processes of this run stop)", error=True)
    sys.stderr.flush()
