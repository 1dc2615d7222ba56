"""Frozen features: extracted once per checkpoint, split, layer and pooling, stored on disk, read as memory maps.

Under torchrun the ranks share the batches, and rank 0 writes. An interrupted extraction continues after its last rows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import Encoder, ImageSplit, InputConfig
from mimbench.data.pipeline.normalised import normalised_batches
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.ranks import fails_together, gather_on_first, on_first_rank
from mimbench.harness.running.shared_store import SharedStore
from mimbench.store.features import FeatureFile, is_whole
from mimbench.store.sealing import fingerprint
from mimbench.store.store import Store

BATCH = 256
POLL_SECONDS = 0.5
"""Between two looks at files that another run extracts."""
NOTE_SECONDS = 10.0
"""Between two notes of the progress, from which an interrupted extraction goes on."""


class FrozenFeatures:
    """A FeatureSource of one encoder.

    All tasks and runs that use one results folder share the files. Two that need the same features extract them once.
    Files that are damaged are written again. All ranks call it together.
    """

    def __init__(
        self,
        encoder: Encoder,
        input_config: InputConfig,
        device: torch.device,
        identity: Mapping[str, Any],
        store: Store,
        *,
        say: Callable[[str], None],
        workers: int = 0,
        batch: int = BATCH,
    ) -> None:
        """
        Args:
            identity: everything that shapes features: weights, data, input, and the code of encoder and dataset.
            store: the results folder, whose `features` folder holds the files.
            say: prints a line.
            workers: processes that load images.
            batch: images per forward pass.
        """
        self.encoder, self.input, self.device = encoder, input_config, device
        self.identity, self.store, self.say = identity, store, say
        self.workers, self.batch = workers, batch

    def __call__(self, split: ImageSplit, which: str, *, layer: int = -1, pooling: str = "mean") -> Tensor:
        return self.each_layer(split, which, layers=[layer], pooling=pooling)[0]

    def each_layer(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[Tensor]:
        self.encoder.check_pooling(pooling)
        indices = [self.encoder.layer_index(layer) for layer in layers]
        paths = self._paths(split, which, indices, pooling)
        shared, has_said_waiting = SharedStore(self.store), False
        key, what = f"features-{fingerprint([self.identity, which])}", f"features of the {which} split"
        while _missing(paths):
            with shared.hold_lease(key, what) as is_held:
                # Another run may have written some of them before this one got the lease.
                missing = _missing(paths) if is_held else {}
                if missing:
                    self._extract(split, missing, pooling)
            if not is_held:
                if not has_said_waiting:
                    self.say(f"waiting: another process extracts features of the {which} split")
                has_said_waiting = True
                time.sleep(POLL_SECONDS)
        return [_open_memory_map(paths[index]) for index in indices]

    def _paths(self, split: ImageSplit, which: str, indices: Sequence[int], pooling: str) -> dict[int, Path]:
        # The dataset's fingerprint may not depend on the order of images, but features are stored in that order. The
        # labels in order are hashed in addition: images that swap places then have the same label, which makes no
        # difference to tasks that pair features with labels.
        order = hashlib.sha256(split.labels.numpy().astype("<i8").tobytes()).hexdigest()
        folder = self.store.root / "features"
        return {
            index: folder / f"{fingerprint([self.identity, which, order, index, pooling])}.npy" for index in indices
        }

    def _extract(self, split: ImageSplit, paths: Mapping[int, Path], pooling: str) -> None:
        """Write the features of some layers in one pass over the split. paths: by index of the layer.

        Batches are the same for every number of ranks and after every interruption, and so are the features.
        """
        files = [FeatureFile(path, len(split)) for path in paths.values()]
        with _closing(files):
            first = _resume(files) // self.batch
            if first:
                self.say(f"features: going on after {first * self.batch:,} of {len(split):,} images")
            batches = self._batches(split, list(paths), pooling, first)
            noted = time.monotonic()
            for turn in range(first, -(-len(split) // self.batch), get_world_size()):
                of_ranks = gather_on_first(_next_batch(batches))
                is_due = time.monotonic() - noted >= NOTE_SECONDS
                _write(files, turn * self.batch, self.batch, of_ranks, note=is_due)
                noted = time.monotonic() if is_due else noted
            _finish(files)

    @torch.inference_mode()
    def _batches(
        self, split: ImageSplit, layers: Sequence[int], pooling: str, first: int
    ) -> Iterator[list[np.ndarray]]:
        """Features of this rank's share of the batches from batch `first` on: float32 [B, D] for each layer."""
        encoder = self.encoder.to(self.device).eval()
        batches = normalised_batches(
            split,
            self.input,
            encoder.in_channels,
            batch_size=self.batch,
            workers=self.workers,
            device=self.device,
            rank=get_rank(),
            world_size=get_world_size(),
            first=first,
        )
        for images, _ in batches:
            outputs = encoder.layers(images, max(layers))
            yield [outputs[layer].pool(pooling).float().cpu().numpy() for layer in layers]


@on_first_rank
def _missing(paths: Mapping[int, Path]) -> dict[int, Path]:
    """Those of the files that are not there, or are damaged."""
    return {index: path for index, path in paths.items() if not is_whole(path)}


@on_first_rank
def _resume(files: Sequence[FeatureFile]) -> int:
    """Go on with what an interrupted run left. Returns the number of rows that all files have."""
    for file in files:
        file.resume()
    return min(file.filled for file in files)


@fails_together
def _next_batch(batches: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    """The next batch of this rank; [] if it has none left."""
    return next(batches, [])


@on_first_rank
def _write(
    files: Sequence[FeatureFile], start: int, size: int, of_ranks: Sequence[Sequence[np.ndarray]], *, note: bool
) -> None:
    """Add one batch of each rank to the files. start: row of the first. size: rows of a whole batch."""
    with _discarding(files):
        for rank, layers in enumerate(of_ranks):
            for file, rows in zip(files, layers, strict=False):  # a rank without a batch has no layers
                file.add(start + rank * size, rows)
        if note:
            for file in files:
                file.note_progress()


@on_first_rank
def _finish(files: Sequence[FeatureFile]) -> None:
    with _discarding(files):
        for file in files:
            file.finish()


@contextmanager
def _discarding(files: Sequence[FeatureFile]) -> Iterator[None]:
    """Remove files that cannot be written or are wrong, so that a full disk has room again."""
    try:
        yield
    except Exception:
        for file in files:
            file.discard()
        raise


@contextmanager
def _closing(files: Sequence[FeatureFile]) -> Iterator[None]:
    """Close what an error or a signal leaves unfinished, with a note of its progress."""
    try:
        yield
    finally:
        for file in files:
            file.close()


def _open_memory_map(path: Path) -> Tensor:
    """A tensor whose pages are read when they are used. Writes to it stay in this process, and never reach the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))
