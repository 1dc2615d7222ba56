"""Files that are whole or not there, for every room."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mimbench.errors import InputError
from mimbench.leases import confirm_leases
from mimbench.process_identity import PATTERN, has_ended, this_process

LONGEST_NAME = 160
"""Bytes of a file's name that its temporary file repeats; file systems allow 255 in all."""
FOREIGN_SECONDS = 86_400.0
"""Age at which a temporary file of another machine counts as abandoned."""
_TEMPORARY = re.compile(rf"\..+\.{PATTERN}\.\w+", re.DOTALL)
_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def write_atomic(path: Path, content: bytes, *, temporaries: Path | None = None) -> None:
    """Write a file that no reader, and no kill, ever sees in part. See `open_atomic`."""
    with open_atomic(path, temporaries=temporaries) as stream:
        stream.write(content)


@contextmanager
def open_atomic(path: Path, *, temporaries: Path | None = None) -> Iterator[BinaryIO]:
    """A stream into a temporary file, which becomes `path` at the end of the block. An OSError names `path`.

    After an error nothing is left of it, and `path` is as it was. What killed processes left in the folder is removed.

    Args:
        temporaries: folder of the temporary file, on the file system of `path`; default: the folder of `path`.
    """
    folder = temporaries or path.parent
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_once(folder)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=temporary_prefix(path.name))
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            confirm_leases()
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class FileState(NamedTuple):
    """What of a file changes with its content. Tools that keep sizes and dates (cp -p, rsync -t, tar) keep neither
    the time of the inode's last change nor, for a file that takes the place of another, the inode."""

    size: int
    modified: int
    """ns, as `changed`."""
    changed: int
    inode: int
    device: int

    @classmethod
    def read(cls, path: Path) -> FileState:
        """The file's present state. Raises OSError if the file is not there."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)

    @classmethod
    def if_there(cls, path: Path) -> FileState | None:
        """None for a file that is not there, or that cannot be looked at."""
        try:
            return cls.read(path)
        except OSError:
            return None


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the file system within become an OSError that names `path`, whichever library raised them."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        number = error_number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """An error of a full disk within that names no file, as most libraries raise it, comes to name `folder`."""
    try:
        yield
    except Exception as error:
        number = error_number(error)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error


def error_number(error: BaseException) -> int | None:
    """The errno of an error, also if another error took its place (torch), or its text alone holds it (Rust libraries,
    DataLoader workers)."""
    if "inline_container" in str(error) and isinstance(error.__context__, OSError):  # torch.save closes its archive
        return error.__context__.errno
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = _ERROR_NUMBER.search(str(error))
    if match:
        return int(match[1] or match[2])
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):  # numpy
        return errno.ENOSPC
    return None


def is_unreadable(error: BaseException | None) -> bool:
    """Whether an error of reading comes from this machine or user, and so says nothing about what the file holds."""
    passing = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.ESTALE)
    return isinstance(error, OSError) and error.errno in passing


def temporary_prefix(name: str) -> str:
    """What the name of a temporary file or folder of this process begins with; `remove_abandoned` recognises it."""
    short = name.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")
    return f".{short}.{this_process()}."


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders directly in `folder` whose process has ended.

    Files of another machine's process are removed after a day, since nothing shows whether it has ended.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(OSError):
                if _has_ended(match, entry):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)


@functools.lru_cache(maxsize=64)
def _remove_abandoned_once(folder: Path) -> None:
    remove_abandoned(folder)


def _has_ended(match: re.Match[str], entry: os.DirEntry[str]) -> bool:
    ended = has_ended(match)
    if ended is None:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > FOREIGN_SECONDS
    return ended


@contextmanager
def writing(what: str) -> Iterator[None]:
    """An OSError within becomes an InputError: `what`, the path with the option that gave it, cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what} cannot be written: {error.strerror or error}") from error
