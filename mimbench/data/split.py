"""Seeded, stratified choices and digests of content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from mimbench.contract import ArraySplit


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` samples, with every class in proportion, to within one sample.

    Unlike scikit-learn's splitters it takes classes of a single sample, and leaves them out of any
    choice of fewer than half the samples.
    """
    # RandomState, because its stream is frozen: the same split with every numpy release.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    depth = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        depth[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = shuffled[np.argsort(depth[shuffled], kind="stable")][:count]
    return np.sort(chosen)


def rest(size: int, chosen: np.ndarray) -> np.ndarray:
    """Sorted indices below `size` that are not in `chosen`."""
    return np.setdiff1d(np.arange(size), chosen)


def array_fingerprint(splits: Mapping[str, ArraySplit]) -> str:
    """SHA-256 over the pixels, labels and class names of in-memory splits."""
    digest = hashlib.sha256()
    for name, split in sorted(splits.items()):
        digest.update(repr((name, tuple(split.images.shape), split.classes)).encode())
        digest.update(split.images.contiguous().numpy().tobytes())
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
