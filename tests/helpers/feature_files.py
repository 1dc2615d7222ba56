"""Writes a file of features that is large enough to meet a limit."""

from __future__ import annotations

import numpy as np

from mimbench.store.features import FeatureFile


def write_large(folder, rows=50_000):
    file = FeatureFile(folder / "a.npy", rows)
    try:
        for block in np.split(np.ones((rows, 8), np.float32), 10):
            file.add(file.filled, block)
        file.finish()
    finally:
        file.discard()
