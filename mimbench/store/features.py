"""Frozen features on disk: rows of float32, and a checksum beside them that is written last.

DIR/features/<fingerprint>.npy        float32 [N, D], in the split's order
DIR/features/<fingerprint>.seal       hash of its name and checksum
DIR/features/<fingerprint>.part       the rows so far, in a file of full size, while they are extracted
DIR/features/<fingerprint>.progress   JSON: how many rows of the .part file are there, and their CRC-32
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mimbench.errors import LeaseLost, RunError
from mimbench.files import FileState, naming, write_atomic
from mimbench.leases import confirm_leases, has_lost_lease

BLOCK = 2**22
"""Bytes that are read and summed at once."""
THREADS = 8
FLOAT = np.dtype(np.float32)


class FeatureFile:
    """Writes rows to a .part file, which replaces the real one when all rows are there.

    An interrupted run leaves the .part file with a note of its progress, and the next run continues from there. The
    caller holds a lease, so that no other process writes.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows = path, rows
        self.filled = 0
        """Number of rows that are written."""
        self._crc = self._width = 0
        self._stream: BinaryIO | None = None

    def resume(self) -> None:
        """Go on after the rows that an interrupted run has noted. They are read, and left out if they are damaged."""
        try:
            note = json.loads(progress_of(self.path).read_bytes())
            rows, self._width, crc = (int(note[key]) for key in ("rows", "width", "crc32"))
            self._stream = part_of(self.path).open("r+b")
            header, end = self._header(), len(self._header()) + self._bytes(rows)
            is_sound = 0 < rows <= self.rows and self._stream.read(len(header)) == header
            if is_sound and _crc_of(self._stream, end - len(header)) == crc:
                self._stream.seek(end)
                _reserve(self._stream.fileno(), len(header) + self._bytes(self.rows))
                self.filled, self._crc = rows, crc
                return
        except (OSError, ValueError, KeyError, TypeError):  # nothing is left, or it is damaged
            pass
        self.discard()

    def add(self, start: int, block: np.ndarray) -> None:
        """Write rows from row `start` on. Those that are there already are left out.

        Raises:
            OSError: the disk is full. The error names the file.
            RunError: rows between those that are there and `start` are missing.
        """
        if start > self.filled:
            raise RunError(f"{self.path}: rows {self.filled} to {start - 1} are missing")
        rows = np.ascontiguousarray(block[self.filled - start :], FLOAT)
        if not len(rows):
            return
        with naming(self.path):
            # Not a memory map: a page of it that gets no block on a full disk ends the process with SIGBUS.
            stream = self._stream or self._open(rows.shape[1])
            stream.write(rows.data)
        self._crc = zlib.crc32(rows.data, self._crc)
        self.filled += len(rows)

    def _open(self, width: int) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._width = width
        stream = self._stream = part_of(self.path).open("wb")
        stream.write(self._header())
        stream.flush()
        _reserve(stream.fileno(), stream.tell() + self._bytes(self.rows))
        return stream

    def note_progress(self) -> None:
        """Note how many rows there are, for `resume`. Raises OSError as `add`."""
        if self._stream is None:
            return
        with naming(self.path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
        note = {"rows": self.filled, "width": self._width, "crc32": self._crc}
        write_atomic(progress_of(self.path), json.dumps(note).encode())

    def finish(self) -> None:
        """Put the file in its place. Raises RunError if rows are missing or too many."""
        if self._stream is None or self.filled != self.rows:
            raise RunError(f"the split has {self.rows} images and its loader gave {self.filled}")
        part = part_of(self.path)
        with naming(self.path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            seal = _seal(self.path, checksum(part))
            part.chmod(0o644)
            confirm_leases()
            os.replace(part, self.path)
        write_atomic(seal_of(self.path), seal.encode())
        progress_of(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Note the progress of a file that is not finished, as far as the disk permits."""
        if self._stream is not None and not self._stream.closed:
            with suppress(OSError, LeaseLost):  # writing the buffer fails on a full disk
                self.note_progress()
            with suppress(OSError):
                self._stream.close()

    def discard(self) -> None:
        """Remove what is not finished."""
        if self._stream is not None:
            with suppress(OSError):  # as in `close`
                self._stream.close()
        self._stream, self.filled, self._crc = None, 0, 0
        if has_lost_lease():  # the files are now those of another process
            return
        for path in (progress_of(self.path), part_of(self.path)):
            path.unlink(missing_ok=True)

    def _header(self) -> bytes:
        stream = io.BytesIO()
        header = {"descr": FLOAT.str, "fortran_order": False, "shape": (self.rows, self._width)}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue()

    def _bytes(self, rows: int) -> int:
        return rows * self._width * FLOAT.itemsize


def _reserve(handle: int, size: int) -> None:
    """Reserve the disk's blocks, so that a full disk shows before hours of work. Some file systems cannot do so."""
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EPERM):
            raise


def checksum(path: Path) -> str:
    """Hex digest over the CRC-32 of every block of a file, taken by several threads.

    It finds damage, not forgery, and unlike SHA-256 in one thread it keeps up with a fast disk.
    """
    with path.open("rb") as stream:

        def summed(start: int) -> bytes:
            return zlib.crc32(os.pread(stream.fileno(), BLOCK, start)).to_bytes(4, "big")

        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
            sums = threads.map(summed, range(0, path.stat().st_size, BLOCK))
            return hashlib.sha256(b"".join(sums)).hexdigest()


def _seal(path: Path, checksum: str) -> str:
    """The name is in it: the features of another encoder or split are not sound under this one."""
    return hashlib.sha256(f"{path.stem} {checksum}".encode()).hexdigest()


def _crc_of(stream: BinaryIO, size: int) -> int:
    """CRC-32 of the next `size` bytes, or of as many as there are."""
    crc = 0
    while size > 0 and (block := stream.read(min(BLOCK, size))):
        crc, size = zlib.crc32(block, crc), size - len(block)
    return crc


def seal_of(path: Path) -> Path:
    return path.with_suffix(".seal")


def part_of(path: Path) -> Path:
    return path.with_suffix(".part")


def progress_of(path: Path) -> Path:
    return path.with_suffix(".progress")


def is_whole(path: Path) -> bool:
    """Whether the file is there as it was written; False for a damaged one, which can be made again."""
    try:
        noted = seal_of(path).read_text(encoding="ascii", errors="replace")
        if noted != _seal(path, _cached_checksum(path, FileState.read(path))):
            return False
        rows = np.load(path, mmap_mode="r")  # never a pickle
        return rows.ndim == 2 and rows.dtype == FLOAT
    except (OSError, ValueError):
        return False


@functools.lru_cache(maxsize=1024)
def _cached_checksum(path: Path, state: FileState) -> str:
    """Computed once per process, not for every task and seed, while the file stays the same."""
    return checksum(path)
