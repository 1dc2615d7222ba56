"""Signals that ask a command to stop.

SIGINT              Ctrl-C
SIGTERM, SIGHUP     SLURM, Kubernetes, a closed terminal
SIGUSR1             SLURM some time before a job's limit (sbatch --signal=USR1@120)
SIGALRM             this process itself, at the end of its time limit
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mimbench.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
AGAIN_SECONDS = 0.05
"""Delay before a signal is sent again that arrived while Python could not raise an exception."""


class StopRequest:
    """Whether a signal has arrived during a training."""

    signal: int = 0
    """Its number, or 0."""

    def note(self, number: int) -> None:
        """Remember the first signal; the second one raises Interrupted at once."""
        if self.signal:
            raise Interrupted(number)
        self.signal = number


@contextmanager
def stop_when_convenient() -> Iterator[StopRequest]:
    """Only note the first signal within this context; code that polls the request stops at a good moment.

    A signal that came after the last poll is sent again at the end.
    """
    request = StopRequest()
    with _handled_by(request.note):
        yield request
    if request.signal:
        signal.raise_signal(request.signal)


@contextmanager
def stop_at_once(seconds: float | None = None) -> Iterator[None]:
    """Raise Interrupted at every signal within this context, so that SIGTERM ends a command as Ctrl-C does.

    Args:
        seconds: time limit, after which SIGALRM comes. None: no limit.
    """

    def stop(number: int) -> None:
        raise Interrupted(number)

    with _handled_by(stop), _delivered_again():
        if seconds is None:
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _delivered_again() -> Iterator[None]:
    """Send the signal again, a moment later, if Python could not raise its Interrupted.

    Python ignores exceptions in destructors and in callbacks of a fork, so the request to stop would be lost.
    """
    before = sys.unraisablehook

    def send_again(ignored: Any) -> None:
        if not isinstance(ignored.exc_value, Interrupted):
            before(ignored)
            return
        timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), ignored.exc_value.signal))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _handled_by(handle: Callable[[int], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        handle(number)

    # A signal that the parent process ignores (nohup, a background job of a shell) stays ignored.
    watched = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in watched}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
