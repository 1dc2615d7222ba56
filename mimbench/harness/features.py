"""Frozen features: extracted once for each checkpoint, split, layer and pooling, and kept on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import ArraySplit, Encoder, Features, ImageSplit, InputConfig
from mimbench.data import DeviceTransform, evaluation_loader
from mimbench.errors import InputError
from mimbench.store.files import file_sha256, fingerprint, write_atomic

POOLINGS: dict[str, Callable[[Features], Tensor]] = {
    "mean": lambda features: features.pooled,
    "token": lambda features: features.prefix[:, 0],
    "mean+token": lambda features: torch.cat((features.pooled, features.prefix[:, 0]), 1),
}
BATCH = 256


class FrozenFeatures:
    """A FeatureSource over one encoder. `identity` is all of it that shapes features (weights, input)."""

    def __init__(
        self,
        encoder: Encoder,
        input: InputConfig,
        device: torch.device,
        identity: Mapping[str, Any],
        folder: Path,
        workers: int,
    ) -> None:
        self.encoder, self.input, self.device = encoder, input, device
        self.identity, self.folder, self.workers = identity, folder, workers

    def __call__(self, split: ImageSplit, which: str, *, layer: int = -1, pooling: str = "mean") -> Tensor:
        """float32 [N, D] on the CPU. Raises InputError for a pooling that the encoder does not have."""
        if pooling not in POOLINGS:
            raise InputError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        if pooling != "mean" and not self.encoder.num_prefix_tokens:
            raise InputError(f"pooling {pooling!r} needs a class token, which a {self.encoder.kind} encoder lacks")
        path = self.folder / f"{fingerprint([self.identity, which, layer, pooling])}.npy"
        kept = _read(path)
        if kept is None:
            kept = self._extract(split, layer, pooling)
            _write(path, kept)
        return torch.from_numpy(kept)

    @torch.inference_mode()
    def _extract(self, split: ImageSplit, layer: int, pooling: str) -> np.ndarray:
        transform = DeviceTransform(
            self.input, self.encoder.in_channels, train=False, batched=isinstance(split, ArraySplit)
        ).to(self.device)
        encoder = self.encoder.to(self.device).eval()
        loader = evaluation_loader(split, self.input, batch_size=BATCH, workers=self.workers, device=self.device)
        pool = POOLINGS[pooling]
        rows = [
            pool(encoder.features(transform(images.to(self.device, non_blocking=True)), layer)).float().cpu()
            for images, _ in loader
        ]
        return torch.cat(rows).numpy()


def _read(path: Path) -> np.ndarray | None:
    """What is kept at `path`, if it is whole; a damaged file is as good as none, since it can be made again."""
    seal = path.with_suffix(".sha256")
    if not (path.exists() and seal.exists()) or seal.read_text() != file_sha256(path):
        return None
    return np.load(path)


def _write(path: Path, features: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, features)
    write_atomic(path, buffer.getvalue())
    write_atomic(path.with_suffix(".sha256"), file_sha256(path).encode())
