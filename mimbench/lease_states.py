"""Leases as any process sees them: what their folders say of their holders. It only reads."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mimbench.process_identity import PATTERN, has_ended

SUFFIX = ".lease"
"""Ends the name of the folder of a lease."""
BEAT = re.compile(rf"(?P<holder>{PATTERN}-\w+-(?P<seconds>\d+))\.(?P<beat>\d+)")
"""A name of the file that is the state of a lease, in parts."""


@dataclass(frozen=True)
class LeaseState:
    """A lease as another process sees it."""

    key: str
    """What it is for: a fingerprint or a record id."""
    what: str
    """What the holder does, in words; "" if not known, as each text here."""
    host: str
    pid: int
    job: str
    """The holder's SLURM job, such as "123" or "123_4" for a task of an array."""
    since: str
    """When it began: ISO 8601, UTC, by the holder's clock."""
    silent: float
    """Seconds since the last sign of life, as far as this machine's clock and that of the file system agree."""
    is_over: bool
    """The holder has ended, or has been silent for too long: the next run takes over."""


def list_leases(folder: Path) -> list[LeaseState]:
    """The leases in a folder (`work` of a results folder), by key. It only reads, on any machine."""
    states = [read_lease(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return [state for state in states if state]


def read_lease(folder: Path) -> LeaseState | None:
    """None if nobody holds the lease in this folder, or if it cannot be read."""
    body: dict[str, object] = {}
    silent = 0.0
    try:
        current = current_state(folder)
    except OSError:
        return None
    if current is None:
        return None
    with suppress(OSError, ValueError):  # the holder is changing
        silent = max(0.0, time.time() - folder.stat().st_mtime)
        body = json.loads((folder / f"{current['holder']}.json").read_text(encoding="utf-8"))
    texts = {name: str(body.get(name, "")) for name in ("what", "host", "job", "since")}
    is_over = bool(has_ended(current)) or silent > int(current["seconds"])
    key = folder.name.removesuffix(SUFFIX)
    return LeaseState(key=key, pid=int(current["pid"]), silent=silent, is_over=is_over, **texts)


def current_state(folder: Path) -> re.Match[str] | None:
    """The name of the file that is the state of a lease, in parts; None if nobody holds it."""
    for _ in range(3):  # a listing may miss a file that is being renamed
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return None
        match = next((match for name in names if (match := BEAT.fullmatch(name))), None)
        if match or not names:
            return match
    return None
