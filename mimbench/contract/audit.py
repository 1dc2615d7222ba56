"""Audits: tasks that are calibrated on a truth which they plant themselves."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mimbench.contract.data_choice import DataChoice
from mimbench.contract.dataset import Dataset
from mimbench.contract.encoder import Encoder
from mimbench.contract.method import Method
from mimbench.contract.task import Task


@dataclass(frozen=True)
class Planted:
    """What an audit runs on when it is calibrated: small, so that a run takes about a second on the CPU."""

    dataset: Dataset
    encoder: Encoder | None = None
    """None: a small ViT with fresh weights, of the size and channels of the dataset's first training image."""
    pretrained_on: DataChoice | None = None
    """As `TaskContext.pretrained_on`."""
    method: Method | None = None
    """As `TaskContext.method`, for audits that declare `needs_reconstruction`."""


class Audit(Task):
    """A task that looks for something, such as memorised images or a difference between groups.

    It is a measuring instrument, so it brings what it can be calibrated on. `mimbench check task NAME` requires that
    the primary metric rises with the dose of a planted truth, is at its end for an oracle, and is chance if nothing is
    planted. It also shows the score of an untrained encoder.
    """

    doses: ClassVar[tuple[float, ...]]
    """Doses of the planted truth, rising; the first is 0, and there are three or more."""
    end: ClassVar[Literal["low", "high"]] = "high"
    """End of the primary metric's range that a large effect moves it to."""

    @abstractmethod
    def plant(self, dose: float, seed: int, folder: Path) -> Planted:
        """An encoder and a dataset with a planted truth.

        Args:
            dose: one of `doses`; 0 plants nothing, so that the primary metric is chance up to its noise.
            seed: of all that is drawn. Equal doses and seeds give equal results.
            folder: an empty folder for files.
        """

    @abstractmethod
    def oracle(self, seed: int, folder: Path) -> Planted:
        """As `plant`, with a truth so plain that the audit has to see all of it."""
