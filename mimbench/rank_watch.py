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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from mimbench.advice import describe_error
from mimbench.process_identity import PATTERN, has_ended
from mimbench.text import print_text

EVERY = 0.5
"""Seconds between two looks."""
PATIENCE = 5.0
"""Seconds that a training has to end by itself after another rank reported its failure."""


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

    def report(self, rank: int, text: str) -> None:
        """Let all ranks know why this training cannot go on."""
        self.store.set(self._key, json.dumps([rank, text]))

    def find_problem(self) -> tuple[int, str] | None:
        """A rank that is gone or has failed in this training, and what is wrong with it."""
        dead = self.find_dead()
        if dead is not None:
            return dead, describe_dead(dead)
        try:
            reported = self.store.check([self._key])
        except Exception:  # the store was in a process that is gone
            return 0, describe_dead(0)
        return tuple(json.loads(self.store.get(self._key))) if reported else None

    def _look(self) -> None:
        seen: float | None = None
        while not self._over.wait(EVERY):
            problem = self.find_problem() if self.is_training else None
            if problem is None:
                seen = None
                continue
            seen = time.monotonic() if seen is None else seen
            if time.monotonic() - seen > PATIENCE:
                rank, text = problem
                with suppress(Exception):  # for the ranks of other nodes
                    self.report(rank, text)
                if self.rank == (0 if rank else 1):
                    say(text)
                os._exit(1)

    @property
    def _key(self) -> str:
        return f"mimbench/failed/{self.trainings}"


_watch: Watch | None = None


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
        with suppress(Exception):
            watch.report(watch.rank, f"rank {watch.rank} failed: {describe_error(error)}")
        raise
    finally:
        watch.is_training = False


def give_up(error: BaseException) -> NoReturn:
    """End this process, since others do not answer. error: of this rank."""
    if _watch is None:
        raise error
    end = time.monotonic() + 4 * EVERY
    while _watch.find_dead() is None and time.monotonic() < end:
        time.sleep(EVERY / 5)
    problem = _watch.find_problem()
    say(problem[1] if problem else f"rank {_watch.rank} failed: {describe_error(error)}")
    sys.exit(1)


def describe_dead(rank: int) -> str:
    return f"rank {rank} ended unexpectedly; it was killed, perhaps because memory ran out"


def say(problem: str) -> None:
    print_text(f"mimbench: {problem} (all processes of this run stop)", error=True)
    sys.stderr.flush()
