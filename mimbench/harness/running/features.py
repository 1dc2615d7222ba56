"""Frozen features: extracted once for each checkpoint, split, layer and pooling, kept on disk, read as memory maps."""

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
    """A FeatureSource over one encoder. `identity` is all of it that shapes features (weights, data, input).

    All tasks and processes on one store share what is kept. Two that want the same extract it once; what is damaged
    is made again.
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
        self.encoder, self.input, self.device = encoder, input_config, device
        self.identity, self.store, self.say = identity, store, say
        self.workers, self.batch = workers, batch

    def __call__(self, split: ImageSplit, which: str, *, layer: int = -1, pooling: str = "mean") -> Tensor:
        return self.each_layer(split, which, layers=[layer], pooling=pooling)[0]

    def each_layer(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[Tensor]:
        self.encoder.check_pooling(pooling)
        indices = [self.encoder.layer_index(layer) for layer in layers]
        kept = self._paths(split, which, indices, pooling)
        if not all(map(is_whole, kept.values())):
            waiting = functools.partial(self.say, f"waiting: another process extracts features of the {which} split")
            with self.store.lock(f"features-{fingerprint([self.identity, which])}", waiting):
                missing = {index: path for index, path in kept.items() if not is_whole(path)}
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


def _mapped(path: Path) -> Tensor:
    """Pages come in as they are used; a write to the tensor stays in this process and off the disk."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))
