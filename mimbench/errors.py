"""The errors that a person may see, and the exit code that each one means."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches

UNFINISHED = 75
"""Exit code of a command that ended before its work was done, and is to be started again (EX_TEMPFAIL)."""


class MimbenchError(Exception):
    """Base of every error whose message is written for the person at the terminal."""

    exit_code = 1


class InputError(MimbenchError):
    """Bad input: one line that says what is wrong, where, and what to do. Nothing was computed."""

    exit_code = 2


class MissingData(InputError):
    """The files of a dataset are not on this machine. A dry run says so and plans the rest."""


class RunError(MimbenchError):
    """A run started and could not finish; what it had saved is kept."""


class LeaseLost(MimbenchError):
    """Another process has taken over what this one did. The command ends, and may be started again."""

    exit_code = UNFINISHED


class NotSupported(MimbenchError):
    """An optional part of a contract that this plugin does not offer."""

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """A signal ended the command. As a KeyboardInterrupt it is never taken for the failure of one cell.

    Its text says which results stay on disk; empty if that is not known.
    """

    def __init__(self, number: int, state: str = "") -> None:
        super().__init__(state)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """UNFINISHED at the end of a time limit; else 128 + the signal's number, as shells report it."""
        return UNFINISHED if self.signal in (signal.SIGALRM, signal.SIGUSR1) else 128 + self.signal

    @property
    def cause(self) -> str:
        """What ended the command, such as "SIGTERM"."""
        return "--time-limit" if self.signal == signal.SIGALRM else self.signal.name


_LISTED_NAMES = 100
"""Names that a message lists at most."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?", or the list of known names, or their number if they are many, if none is near."""
    known = sorted(set(known))
    matches = get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"
    if len(known) > _LISTED_NAMES:
        return f"; none of the {len(known)} that it has is like it"
    return f"; known: {', '.join(known)}" if known else "; none is installed"
