"""Which images of a dataset a pretraining sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimbench.contract.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class DataChoice:
    """The images of a train split that a pretraining sees: a seeded share, and planted images in copies.

    `mimbench.api.training_indices` and `mimbench.api.planted_indices` give their positions in the split.
    """

    share: float = 1.0
    """Fraction of the images that are not planted, in (0, 1]."""
    seed: int = 0
    """Which images the share has."""
    plant_count: int = 0
    """Number of planted images."""
    plant_copies: int = 1
    """How often each of them is among the images."""
    plant_seed: int = 0
    """Which images are planted."""
    content: str | None = None
    """Fingerprint of the dataset's content, if known."""

    @classmethod
    def from_config(cls, config: PretrainConfig) -> DataChoice:
        """The choice that a recipe's [pretrain] sets."""
        return cls(config.data_share, config.data_seed, config.plant_count, config.plant_copies, config.plant_seed)

    @classmethod
    def from_identity(cls, data: Mapping[str, Any]) -> DataChoice:
        """The choice in the table "data" of a pretraining's identity, which checkpoints hold."""
        return cls(**{name: value for name, value in data.items() if name != "name"})

    def identity(self) -> dict[str, Any]:
        """What enters the identity of a pretraining; empty if it sees all images, each once."""
        share = {} if self.share == 1 else {"share": self.share, "seed": self.seed}
        if not self.plant_count:
            return share
        names = ("plant_count", "plant_copies", "plant_seed")
        return share | {name: getattr(self, name) for name in names}
