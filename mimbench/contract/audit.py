"""Audits: tasks that look for an effect, and are calibrated on data with a planted effect of known size."""

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
class AuditInput:
    """What an audit runs on when it is calibrated: small, so that a run takes about a second on the CPU."""

    dataset: Dataset
    encoder: Encoder | None = None
    """None: a small ViT with fresh weights, of the size and channels of the dataset's first training image."""
    pretrained_on: DataChoice | None = None
    """As `TaskContext.pretrained_on`."""
    method: Method | None = None
    """As `TaskContext.method`, for audits that declare `needs_reconstruction`."""


class Audit(Task):
    """A task that looks for an effect, such as memorised images or a difference between groups.

    It makes data with a planted effect of known size. `mimbench check task NAME` requires that the primary metric rises
    with the dose of the effect, reaches `effect_end` for the positive control (`oracle`), and is at chance for the
    negative control (dose 0). It also shows the score of an untrained encoder.
    """

    doses: ClassVar[tuple[float, ...]]
    """Strengths of the planted effect, rising; the first is 0, and there are three or more."""
    effect_end: ClassVar[Literal["low", "high"]] = "high"
    """The end of the primary metric's range that a strong effect moves it to."""

    @abstractmethod
    def plant(self, dose: float, seed: int, folder: Path) -> AuditInput:
        """An encoder and a dataset with a planted effect.

        Args:
            dose: one of `doses`; 0 plants nothing, so that the primary metric is chance up to its noise.
            seed: of all that is drawn. Equal doses and seeds give equal results.
            folder: an empty folder for files.
        """

    @abstractmethod
    def oracle(self, seed: int, folder: Path) -> AuditInput:
        """The positive control: as `plant`, with an effect so strong that the metric must reach `effect_end`."""
