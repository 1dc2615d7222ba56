"""Leases: one process at a time makes a thing, also on network file systems that have no file locks.

A lease is a folder with one file whose name says who holds it and counts its signs of life:

FOLDER/<process>-<token>-<seconds>.<beat>    empty; renamed to the next beat by a thread of the holder
FOLDER/<process>-<token>-<seconds>.json      who holds it, for people

Each step is one rename, which a file system carries out for one process only. The holder renames the file to the next
beat. A successor renames the file that it has seen to its own name; so it fails if the holder has renamed it meanwhile,
and the holder fails from then on. No clocks are compared: a lease is over if its file keeps its name for <seconds> on
the observer's own monotonic clock, or at once if its process ran on this machine and has ended.

A holder that was stopped for longer than that, and wakes up, must not write what its successor writes. So everything
that is published calls `confirm_leases` first, which raises LeaseLost then.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mimbench.errors import InputError, LeaseLost
from mimbench.lease_states import SUFFIX, current_state, read_lease
from mimbench.process_identity import has_ended, this_process

SECONDS = 120
"""Without a sign of life for so long, a lease is over. MIMBENCH_LEASE_SECONDS sets it for one process."""
BEATS = 6
"""Signs of life in that time. One may come late, when the file system is slow."""
POLL_SECONDS = 0.5
_OTHER_FOLDER = "or choose another folder (--results; MIMBENCH_CACHE for derived data)"
_held: list[_Lease] = []
"""The leases of this process. A child process that is forked holds none."""
_seen: dict[Path, tuple[str, float]] = {}
"""By folder of another process's lease: the name of its file, and when this process first saw it (monotonic clock)."""
os.register_at_fork(after_in_child=_held.clear)


@contextmanager
def hold_lease(path: Path, what: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lease of `path`, alone among all processes. Calls `waiting` once if another process holds it.

    Args:
        path: what the lease is for. Its folder is made if it is missing.
        what: what this process does meanwhile, for people.

    Raises:
        InputError: leases do not work in that folder.
    """
    lease = _take(path, what)
    if lease is None:
        waiting()
    while lease is None:
        time.sleep(min(POLL_SECONDS, lease_seconds() / 10))
        lease = _take(path, what)
    try:
        yield
    finally:
        lease.release()


@contextmanager
def hold_lease_if_free(path: Path, what: str) -> Iterator[bool]:
    """As `hold_lease`, without waiting: yields False if another process holds the lease, else True."""
    lease = _take(path, what)
    try:
        yield lease is not None
    finally:
        if lease:
            lease.release()


def confirm_leases() -> None:
    """Raise LeaseLost unless this process still holds all its leases. To be called right before a result is published.

    It counts as a sign of life.
    """
    for lease in list(_held):
        lease.confirm()


def has_lost_lease() -> bool:
    """Whether a lease of this process is known to be lost. Unlike `confirm_leases` it does not touch the disk."""
    return any(lease.lost for lease in _held)


def release_all() -> None:
    """Give back all leases of this process, which is about to end. What it would still publish is refused."""
    for lease in list(_held):
        lease.release()
        lease.lost = f"{lease.what}: stopped, since this process ends"
        _held.append(lease)


def lease_seconds() -> int:
    """How long other processes wait for a sign of life of this one.

    Raises:
        InputError: MIMBENCH_LEASE_SECONDS is no whole number from 1.
    """
    text = os.environ.get("MIMBENCH_LEASE_SECONDS", str(SECONDS))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"MIMBENCH_LEASE_SECONDS = {text!r}: it must be a whole number from 1 (default: {SECONDS})")
    return int(text)


class _Lease:
    """A lease that this process holds or tries to get."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder, self.what, self.seconds = folder, what, lease_seconds()
        self.holder = f"{this_process()}-{secrets.token_hex(4)}-{self.seconds}"
        self.lost = ""
        """Why it was lost; "" as long as it is held."""
        self._beat = 0
        self._turn = threading.Lock()
        self._is_released = threading.Event()

    def create(self) -> bool:
        """Take a lease that nobody holds. False: another process was faster."""
        temporary = self.folder.with_name(f".{self.folder.name}.{this_process()}.{secrets.token_hex(4)}")
        temporary.mkdir()
        try:
            self._describe(temporary)
            (temporary / self._file(0).name).touch()
            _rename(temporary, self.folder, self._file(0))  # takes the place of an empty folder only
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        self._start()
        return True

    def take_over(self, file: str) -> bool:
        """Take a lease that is over. False if `file`, its state as it was seen, is no longer its state."""
        try:
            self._describe(self.folder)
            _rename(self.folder / file, self._file(0), self._file(0))
        except FileNotFoundError:
            self._forget()
            return False
        self._start()
        for path in self.folder.glob("*.json"):
            if path.stem != self.holder:
                path.unlink(missing_ok=True)
        return True

    def confirm(self) -> None:
        """Give a sign of life. Raises LeaseLost if the lease is no longer this process's."""
        with self._turn:
            if not self.lost:
                following = self._file(self._beat + 1)
                try:
                    _rename(self._file(self._beat), following, following)
                except FileNotFoundError:
                    self.lost = self._describe_loss()
                self._beat += 1
            if self.lost:
                raise LeaseLost(self.lost)

    def release(self) -> None:
        """Give the lease back. One that was lost stays with its holder."""
        self._is_released.set()
        with self._turn:
            if self in _held:
                _held.remove(self)
            self._forget()
            with suppress(OSError):
                self._file(self._beat).unlink(missing_ok=True)
                self._file(self._beat + 1).unlink(missing_ok=True)  # a signal may have come before it was counted
                self.folder.rmdir()

    def _start(self) -> None:
        _held.append(self)
        _seen.pop(self.folder, None)
        threading.Thread(target=self._give_signs, name=f"lease {self.folder.name}", daemon=True).start()

    def _give_signs(self) -> None:
        while not self._is_released.wait(self.seconds / BEATS):
            try:
                self.confirm()
            except LeaseLost:
                return
            except OSError:  # the file system does not answer; the next publication shows whether the lease is lost
                continue

    def _file(self, beat: int) -> Path:
        return self.folder / f"{self.holder}.{beat}"

    def _describe(self, folder: Path) -> None:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        body = {
            "what": self.what,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", ""),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        (folder / f"{self.holder}.json").write_text(json.dumps(body), encoding="utf-8")

    def _forget(self) -> None:
        with suppress(OSError):
            (self.folder / f"{self.holder}.json").unlink(missing_ok=True)

    def _describe_loss(self) -> str:
        successor = read_lease(self.folder)
        if successor is None:
            how = f"{self.folder} was deleted or given back by another process"
        else:
            how = f"process {successor.pid} on {successor.host or 'another machine'} has taken over"
        return (
            f"{self.what}: stopped, since {how} while this process gave no sign of life for {self.seconds} s; nothing "
            "was overwritten, and the same command joins in again"
        )


def _rename(source: Path, target: Path, proof: Path) -> None:
    """Rename a file or folder. proof: is there only if it was done.

    A network file system may repeat a rename that was done, and then report that the source is not there.
    """
    try:
        os.rename(source, target)
    except FileNotFoundError:
        if not os.path.lexists(proof):
            raise


def _take(path: Path, what: str) -> _Lease | None:
    """The lease of `path`; None if another process holds it."""
    folder = path.with_name(path.name + SUFFIX)
    try:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        folder.parent.mkdir(parents=True, exist_ok=True)
        lease = _Lease(folder, what)
        current = current_state(folder)
        if current is None:
            _sweep(folder)
            is_taken = lease.create()
        else:
            is_taken = _is_over(folder, current) and lease.take_over(current[0])
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror or error}); {_advice(error)}") from error
    return lease if is_taken else None


def _sweep(folder: Path) -> None:
    """Remove what is left of a process that was killed while it gave the lease back."""
    with suppress(OSError):
        for path in folder.glob("*.json"):
            path.unlink(missing_ok=True)


def _is_over(folder: Path, current: re.Match[str]) -> bool:
    if has_ended(current):
        return True
    file, since = _seen.get(folder, ("", 0.0))
    now = time.monotonic()
    if file != current[0]:
        _seen[folder] = (current[0], now)
        return False
    return now - since >= int(current["seconds"])


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free space on its disk, {_OTHER_FOLDER}"
    if error.errno == errno.ELOOP:
        return "it is a link; delete it"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "it, or the folder above it, is a file; delete that"
    return f"make its folder writable, {_OTHER_FOLDER}"
