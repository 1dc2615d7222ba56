"""Formulas that modules share to turn a run's seed into the seed of a random stream; the fork of shared generators.

A few streams are seeded where they are drawn (few-shot, corruptions, k-means).

Recorded numbers depend on these formulas, so each stays as it is. They differ because each was fixed by records that
exist; new code uses `derive_seed`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """One seed in [0, 2**63) from several numbers or words; near inputs give unrelated seeds.

    Used for initial weights ("init", seed), stages ("stage", seed), and training steps (seed, rank, step).
    """
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def image_seed(*parts: int) -> int:
    """One seed in [0, 2**64) for images that a loader shuffles (seed, epoch) or augments (seed, epoch, index)."""
    import numpy as np

    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def scene_seed(seed: int, epoch: int) -> int:
    """The seed for the order of detection scenes in one epoch, and for the seeds of their augmentation."""
    return seed * 1_000_003 + epoch


def mmengine_seed(seed: int) -> int:
    """The seed as mmengine's Runner accepts it: in [0, 2**31)."""
    return seed % 2**31


@contextmanager
def fork_rng(seed: int, device: torch.device | None = None, *, spread_numpy: bool = True) -> Iterator[None]:
    """Seed the shared generators of Python, numpy and torch within the block, and restore them afterwards.

    Args:
        seed: in [0, 2**64); in [0, 2**32) without `spread_numpy`.
        device: a CUDA device whose generator is seeded and restored too.
        spread_numpy: numpy gets 128 bits spread from the seed, as timm's augmentation in finetune needs for large
            seeds. False: numpy gets the seed itself, as mmdet's augmentation in detection does.
    """
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        try:
            random.seed(seed)
            np.random.seed(np.random.SeedSequence(seed).generate_state(4) if spread_numpy else seed)
            torch.default_generator.manual_seed(seed)
            if on_cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
