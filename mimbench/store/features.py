"""Frozen features on disk: rows of float32, and a checksum beside them that is written last.

DIR/features/<fingerprint>.npy    float32 [N, D], in the split's order
DIR/features/<fingerprint>.seal   hash of its name and checksum
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mimbench.errors import RunError
from mimbench.files import FileState, naming, temporary_prefix, write_atomic
from mimbench.leases import confirm_leases

BLOCK = 2**22
"""Bytes that are read and summed at once."""
THREADS = 8


class FeatureFile:
    """Writes rows to a temporary file, which replaces the real one when all rows are there."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows, self.filled = path, rows, 0
        self._stream: BinaryIO | None = None
        self._temporary: Path | None = None

    def add(self, block: np.ndarray) -> None:
        """Append rows. Raises OSError, which names the file, if the disk is full."""
        with naming(self.path):
            # Not a memory map: a page of it that gets no block on a full disk ends the process with SIGBUS.
            stream = self._stream or self._open(block.shape[1])
            stream.write(np.ascontiguousarray(block, np.float32).data)
        self.filled += len(block)

    def _open(self, width: int) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=temporary_prefix(self.path.name))
        self._temporary = Path(temporary)
        stream = self._stream = os.fdopen(handle, "wb")
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": (self.rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.flush()
        _reserve(stream.fileno(), stream.tell() + self.rows * width * np.dtype(np.float32).itemsize)
        return stream

    def finish(self) -> None:
        """Put the file in its place. Raises RunError if rows are missing or too many."""
        if self._stream is None or self._temporary is None or self.filled != self.rows:
            raise RunError(f"the split has {self.rows} images and its loader gave {self.filled}")
        with naming(self.path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            seal = _seal(self.path, checksum(self._temporary))
            self._temporary.chmod(0o644)
            confirm_leases()
            os.replace(self._temporary, self.path)
        write_atomic(seal_of(self.path), seal.encode())

    def discard(self) -> None:
        """Remove what `finish` did not put in its place."""
        if self._stream is not None:
            with suppress(OSError):  # flushing the buffer fails on a full disk too
                self._stream.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


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


def seal_of(path: Path) -> Path:
    return path.with_suffix(".seal")


def is_whole(path: Path) -> bool:
    """Whether the file is there as it was written; False for a damaged one, which can be made again."""
    try:
        noted = seal_of(path).read_text(encoding="ascii", errors="replace")
        if noted != _seal(path, _cached_checksum(path, FileState.read(path))):
            return False
        rows = np.load(path, mmap_mode="r")  # never a pickle
        return rows.ndim == 2 and rows.dtype == np.float32
    except (OSError, ValueError):
        return False


@functools.lru_cache(maxsize=1024)
def _cached_checksum(path: Path, state: FileState) -> str:
    """Computed once per process, not for every task and seed, while the file stays the same."""
    return checksum(path)
