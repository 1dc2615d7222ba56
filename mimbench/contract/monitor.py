"""What a monitor measures on the features of a model while it is pretrained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class MonitorInput:
    """Frozen features of the watched images: training images, the same ones at every measurement.

    A monitor that fits something does so on the rows of `fitted`, and scores on those of `held_out`. Every fifth row is
    held out, and rows are not shuffled. That suits shuffled data: where neighbours are near-duplicates, such as frames
    of a video, the held-out rows are too easy.
    """

    features: Tensor
    """float32 [N, D] on the CPU: the last layer, mean-pooled."""
    labels: Tensor | None = None
    """int64 [N]; None if the dataset has none."""
    classes: int = 0
    """Number of the dataset's classes."""
    views: Tensor | None = None
    """float32 [n, q, D]: features of `Monitor.views` augmented views of the first images; None if no monitor asks for
    views."""

    @property
    def fitted(self) -> Tensor:
        """Indices of four fifths of the images, int64."""
        return self._places(held_out=False)

    @property
    def held_out(self) -> Tensor:
        """Indices of the others, every fifth image."""
        return self._places(held_out=True)

    def _places(self, *, held_out: bool) -> Tensor:
        places = torch.arange(len(self.features))
        return places[(places % 5 == 4) == held_out]


class Monitor(ABC):
    """A number that is measured during pretraining. An entry point of `mimbench.monitors` makes it known by its name.

    `pretrain.monitor = ["NAME"]` asks for it. It sees a copy of the encoder's features only, so it cannot change the
    training.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    """Whether it reads `MonitorInput.labels`. Datasets without labels then refuse it before anything is trained."""
    views: ClassVar[int] = 0
    """Augmented views per image that it asks for; of two monitors, the larger number counts."""

    @abstractmethod
    def measure(self, seen: MonitorInput) -> float:
        """The value. One that is not finite is left out of the curve. Several processes call it on the first only."""
