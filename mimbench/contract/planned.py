"""What `mimbench plan` knows of data and training steps, so that it can count without data, weights or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mimbench.contract.train_config import TrainConfig


@dataclass(frozen=True)
class DataSizes:
    """Numbers of a dataset, known without its files."""

    train: int
    """Images, clips or scenes of the training split."""
    test: int
    classes: int
    channels: int
    source: str
    """Where the numbers come from, such as "arXiv:1409.0575, table 2" or "the files of folder"."""
    side: int | None = None
    """Longer side of its usual images, px; None: it varies, or is not known."""
    has_objects: bool = False
    """Whether its classes are those of objects. Label maps of objects have one class more, the background."""

    @property
    def pixel_classes(self) -> int:
        """Classes of a label map."""
        return self.classes + self.has_objects


@dataclass(frozen=True)
class PlannedStep:
    """One training step of a task, to be traced without computing anything."""

    model: nn.Module
    """A Trainable. What its `training_step` computes may stand in for the real losses if those depend on values: it is
    run with tensors that have shapes and types, and no values."""
    batch: Callable[[int], Any]
    """Makes a micro-batch of so many images, as the loader yields it: a tuple, list or dict."""
    config: TrainConfig
    note: str = ""
    """What the step leaves out, for the person who reads the plan."""
