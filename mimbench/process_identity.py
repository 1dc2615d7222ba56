"""Names for processes that share a file system: which one this is, and whether another one has ended."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

PATTERN = r"(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)"
"""Of the name of a process, as a regular expression."""


def this_process() -> str:
    """The name of this process, unique among all machines: place, number and start time."""
    return process_name(os.getpid())


def process_name(pid: int) -> str:
    """The name of a process of this machine."""
    return f"{_place()}-{pid}-{_start_of(pid) or 0}"


def has_ended(process: re.Match[str]) -> bool | None:
    """Whether a process has ended; None: it ran elsewhere, where this cannot be seen. process: a match of PATTERN."""
    if process["place"] != _place():
        return None
    pid = int(process["pid"])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it runs under another user
    current = _start_of(pid)
    return current is not None and current != int(process["start"])  # the number was given to a later process


def _start_of(pid: int) -> int | None:
    """When a process started, in ticks since boot; -1: it was killed and waits for its parent; None: not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


@functools.cache
def _place() -> str:
    """Where numbers of processes mean the same: this machine since it booted, and this container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:8]
