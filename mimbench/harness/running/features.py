"""Frozen features: extracted once per checkpoint, split, layer and pooling, stored on disk, read as memory maps."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import Encoder, ImageSplit, InputConfig
from mimbench.data import DeviceTransform, evaluation_loader
from mimbench.store.features import FeatureFile, is_whole
from mimbench.store.sealing import fingerprint
from mimbench.store.store import Store

BATCH = 256


class FrozenFeatures:
    """A FeatureSource of one encoder.

    All tasks and processes that use one results folder share the files. Two that need the same features extract them
    once. Files that are damaged are written again.
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
        if not all(map(is_whole, paths.values())):
            waiting = functools.partial(self.say, f"waiting: another process extracts features of the {which} split")
            key, what = f"features-{fingerprint([self.identity, which])}", f"features of the {which} split"
            with self.store.lock(key, what, waiting):
                # Another process may have written some of them before this one got the lock.
                missing = {index: path for index, path in paths.items() if not is_whole(path)}
                if missing:
                    self._extract(split, missing, pooling)
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

    @torch.inference_mode()
    def _extract(self, split: ImageSplit, paths: Mapping[int, Path], pooling: str) -> None:
        """Write the features of some layers in one pass over the split. paths: by index of the layer."""
        transform = DeviceTransform(self.input, self.encoder.in_channels, train=False, batched=split.is_in_memory).to(
            self.device
        )
        encoder = self.encoder.to(self.device).eval()
        loader = evaluation_loader(split, self.input, batch_size=self.batch, workers=self.workers, device=self.device)
        files = {index: FeatureFile(path, len(split)) for index, path in paths.items()}
        try:
            for images, _ in loader:
                outputs = encoder.layers(transform(images.to(self.device, non_blocking=True)), max(paths))
                for index, file in files.items():
                    file.add(outputs[index].pool(pooling).float().cpu().numpy())
            for file in files.values():
                file.finish()
        finally:
            for file in files.values():
                file.discard()


def _open_memory_map(path: Path) -> Tensor:
    """A tensor whose pages are read when they are used. Writes to it stay in this process, and never reach the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))
