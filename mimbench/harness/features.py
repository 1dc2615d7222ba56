"""Frozen features: extracted once for each checkpoint, split, layer and pooling, kept on disk, read as memory maps.

DIR/features/<fingerprint>.npy    float32 [N, D], in the split's order
DIR/features/<fingerprint>.seal   its checksum, written last
"""

from __future__ import annotations

import functools
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import ArraySplit, Encoder, ImageSplit, InputConfig, RunError
from mimbench.data import DeviceTransform, evaluation_loader
from mimbench.files import write_atomic
from mimbench.store.files import fingerprint
from mimbench.store.store import Store

BATCH = 256
BLOCK = 2**22
"""Bytes that are read and summed at once."""
THREADS = 8


class FrozenFeatures:
    """A FeatureSource over one encoder. `identity` is all of it that shapes features (weights, data, input).

    All tasks and processes on one store share what is kept. Two that want the same extract it once; what is damaged
    is made again.
    """

    def __init__(
        self,
        encoder: Encoder,
        input: InputConfig,
        device: torch.device,
        identity: Mapping[str, Any],
        store: Store,
        *,
        say: Callable[[str], None],
        workers: int = 0,
        batch: int = BATCH,
    ) -> None:
        self.encoder, self.input, self.device = encoder, input, device
        self.identity, self.store, self.say = identity, store, say
        self.workers, self.batch = workers, batch

    def __call__(self, split: ImageSplit, which: str, *, layer: int = -1, pooling: str = "mean") -> Tensor:
        return self.each(split, which, layers=[layer], pooling=pooling)[0]

    def each(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[Tensor]:
        self.encoder.check_pooling(pooling)
        indices = [self.encoder.layer_index(layer) for layer in layers]
        kept = self._paths(split, which, indices, pooling)
        if not all(map(_whole, kept.values())):
            waiting = functools.partial(self.say, f"waiting: another process extracts features of the {which} split")
            with self.store.lock(f"features-{fingerprint([self.identity, which])}", waiting):
                missing = {index: path for index, path in kept.items() if not _whole(path)}
                if missing:
                    self._extract(split, missing, pooling)
        return [_mapped(kept[index]) for index in indices]

    def _paths(self, split: ImageSplit, which: str, indices: Sequence[int], pooling: str) -> dict[int, Path]:
        # A fingerprint of content need not fix the order of images. The labels in order do, as far as any task that
        # pairs features with labels can tell: images that change places then are of one class.
        order = hashlib.sha256(split.labels.numpy().astype("<i8").tobytes()).hexdigest()
        folder = self.store.root / "features"
        return {
            index: folder / f"{fingerprint([self.identity, which, order, index, pooling])}.npy" for index in indices
        }

    @torch.inference_mode()
    def _extract(self, split: ImageSplit, paths: Mapping[int, Path], pooling: str) -> None:
        transform = DeviceTransform(
            self.input, self.encoder.in_channels, train=False, batched=isinstance(split, ArraySplit)
        ).to(self.device)
        encoder = self.encoder.to(self.device).eval()
        loader = evaluation_loader(split, self.input, batch_size=self.batch, workers=self.workers, device=self.device)
        sheets = {index: _Sheet(path, len(split)) for index, path in paths.items()}
        try:
            for images, _ in loader:
                outputs = encoder.layers(transform(images.to(self.device, non_blocking=True)), max(paths))
                for index, sheet in sheets.items():
                    sheet.add(outputs[index].pool(pooling))
            for sheet in sheets.values():
                sheet.finish()
        finally:
            for sheet in sheets.values():
                sheet.discard()


class _Sheet:
    """Rows that are written to a file as they come, which takes its place when all are there."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows, self.filled = path, rows, 0
        # Only whoever holds the lock writes, and over what a killed process left.
        self.partial = path.with_name(f".{path.name}.part")
        self.array: np.memmap | None = None

    def add(self, block: Tensor) -> None:
        if self.array is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shape = (self.rows, block.shape[1])
            self.array = np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=shape)
        self.array[self.filled : self.filled + len(block)] = block.float().cpu().numpy()
        self.filled += len(block)

    def finish(self) -> None:
        if self.array is None or self.filled != self.rows:
            raise RunError(f"the split has {self.rows} images and its loader gave {self.filled}")
        self.array.flush()
        with self.partial.open("rb") as stream:
            os.fsync(stream.fileno())
        seal = checksum(self.partial)
        os.replace(self.partial, self.path)
        write_atomic(_seal(self.path), seal.encode())

    def discard(self) -> None:
        self.array = None
        self.partial.unlink(missing_ok=True)


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


def _whole(path: Path) -> bool:
    """Whether the file is there as it was written; a damaged one can be made again, so it is as good as none."""
    try:
        state = path.stat()
        noted = _seal(path).read_text(encoding="ascii", errors="replace")
        return noted == _kept_checksum(path, state.st_ino, state.st_size, state.st_mtime_ns)
    except OSError:
        return False


@functools.lru_cache(maxsize=1024)
def _kept_checksum(path: Path, inode: int, size: int, modified: int) -> str:
    """Once a process, not for every task and seed, while the file stays the same."""
    return checksum(path)


def _seal(path: Path) -> Path:
    return path.with_suffix(".seal")


def _mapped(path: Path) -> Tensor:
    """Pages come in as they are used; a write to the tensor stays in this process and off the disk."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))
