"""Images whose classes are easy to see, but in one group the other way round: what the audit is calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mimbench.api import ArraySplit, DataConfig, Dataset, SplitName

_SIDE, _COUNT = 8, 200
_BRIGHT = (90.0, 165.0)
"""Mean brightness of the classes."""


class ReversedGroups(Dataset):
    """Dark and bright noise, grey uint8 [1, 8, 8], in two groups of equal size.

    In the train split, class 0 is dark and class 1 is bright, in both groups. In the test split, `share` of the images
    of group 1 have the brightness of the other class. A head that learns the brightness is thus wrong about them.
    """

    name = "reversed-groups"
    provides = frozenset({"images", "labels", "attributes"})
    channels = 1

    def __init__(self, share: float, noise: float, seed: int, folder: Path) -> None:
        super().__init__(DataConfig(), folder)
        self._content = f"reversed-groups-{share}-{noise}-{seed}"
        self._splits = {name: _draw(part * share, noise, [seed, part]) for part, name in enumerate(("train", "test"))}

    def split(self, name: SplitName) -> ArraySplit:
        return self._splits[name]

    def fingerprint(self) -> str:
        return self._content


def _draw(share: float, noise: float, seed: list[int]) -> ArraySplit:
    rng = np.random.RandomState(seed)
    order = rng.permutation(_COUNT)
    labels, groups = order % 2, order // 2 % 2
    looks = labels.copy()
    for label in (0, 1):
        of_group = np.flatnonzero((labels == label) & (groups == 1))
        turned = rng.permutation(of_group)[: round(share * len(of_group))]
        looks[turned] = 1 - looks[turned]
    bright = np.array(_BRIGHT)[looks] + rng.normal(0, noise, _COUNT)
    pixels = bright[:, None, None, None] + rng.normal(0, 10, (_COUNT, 1, _SIDE, _SIDE))
    return ArraySplit(
        torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)),
        torch.from_numpy(labels),
        ("dark", "bright"),
        {"group": torch.from_numpy(groups)},
    )
