"""The task contract: what is measured on a pretrained encoder, and how it is declared."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader

from mimbench.contract.config import Config, cosmetic
from mimbench.contract.dataset import Dataset, ImageSplit
from mimbench.contract.encoder import Encoder
from mimbench.contract.input import InputConfig
from mimbench.contract.method import Method
from mimbench.contract.protocol import Protocol
from mimbench.contract.training import FitReport, Trainable, TrainConfig
from mimbench.errors import NotSupported


@dataclass(frozen=True)
class Metric:
    """A number that a task reports. `low` and `high` bound it, in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    higher_is_better: bool = True


@dataclass(frozen=True)
class Measured:
    """A metric's value, and over how many samples (`n`) it was taken."""

    value: float
    n: int


@dataclass(frozen=True)
class TaskResult:
    """What a task found: every metric it declared; curves and files as it likes."""

    metrics: Mapping[str, Measured]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    """Files in the task's workdir, by what they show."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Choices made on the way (a validated regularisation), as plain JSON data."""
    cost: FitReport | None = None


class Fit(typing.Protocol):
    """The engine's trainer, lent to tasks that train: resumable, guarded, with a progress bar."""

    def __call__(
        self,
        model: Trainable,
        loader: DataLoader,
        config: TrainConfig,
        *,
        label: str,
        images_per_epoch: int,
        options: str = "task.train",
    ) -> FitReport:
        """options: the table that `config` comes from, as --set knows it: advice to the user names it.

        One that ends in "train" has all options of a TrainConfig, any other at least `base_lr` and `batch_size`.
        """


class FeatureSource(typing.Protocol):
    """Frozen features of the task's encoder, extracted once for each checkpoint and kept on disk."""

    def __call__(self, split: ImageSplit, which: str, *, layer: int, pooling: str) -> torch.Tensor:
        """float32 [N, D] on the CPU, in the split's order; `which` is "train" or "test".

        Raises:
            InputError: the encoder has no such layer or pooling.
        """

    def each_layer(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[torch.Tensor]:
        """The same for several layers, float32 [N, D] each: what is not there yet is extracted in one pass."""


@dataclass(frozen=True)
class TaskContext:
    """What the harness lends a task for one run."""

    seed: int
    device: torch.device
    workdir: Path
    """An empty folder of the task's own; what TaskResult names in it is kept."""
    input: InputConfig
    """The recipe's [input]: image size and normalisation that the encoder was pretrained with."""
    fit: Fit
    features: FeatureSource
    say: Callable[[str], None]
    """One line to the person at the terminal."""
    method: Method | None = None
    """The whole pretrained method, on `device` and in evaluation mode, for a task that `needs_reconstruction`."""


class TaskConfig(Config):
    """Options that every task has; a task's own Config extends it."""

    protocol: str | None = None
    """Name of the protocol beneath these options, where the task has some; they may depart from it."""
    dataset: str | None = cosmetic(None)
    """The dataset it runs on; absent: the one that the encoder was pretrained on, or the task's default."""
    data: dict[str, Any] = cosmetic({})
    """That dataset's own options, over those of the recipe's [datasets.NAME]. Name and content of the dataset enter
    the protocol, not how it was asked for."""


class Task(ABC):
    """Something measured on a pretrained encoder."""

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever the same encoder could score otherwise."""
    needs: ClassVar[frozenset[str]] = frozenset({"images", "labels"})
    """What the dataset must provide."""
    trains_encoder: ClassVar[bool] = False
    needs_reconstruction: ClassVar[bool] = False
    """It measures what the method makes of hidden pixels: it gets TaskContext.method, and runs only where that can."""
    metrics: ClassVar[tuple[Metric, ...]]
    """Declared metrics; the first is the primary one."""
    Config: ClassVar[type[TaskConfig]] = TaskConfig
    protocols: ClassVar[Mapping[str, Protocol]] = {}
    """Named protocols, see `load_protocols`. One sets options; recipe and user override them."""
    default_protocol: ClassVar[str | None] = None
    """The one of `protocols` that runs where none is named."""
    default_dataset: ClassVar[str | None] = None
    """Dataset used where neither recipe nor user names one; None: the recipe's own."""

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @classmethod
    def checkup(cls) -> list[str]:
        """Lines for `mimbench doctor`: which optional parts this task found, and how to get the others."""
        return []

    def protocol(self) -> dict[str, Any]:
        """Everything that may change the score, as plain JSON data; its hash goes into the record."""
        return {"task": self.name, "version": self.version, **self.config.shaping()}

    def relevant_input(self, input_config: InputConfig) -> dict[str, Any]:
        """What of the recipe's [input] may change the score, for the protocol; override where training augments."""
        return input_config.evaluation()

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Raise InputError where this task cannot run on these; called before anything is computed."""

    def export(self, encoder: Encoder, dataset: Dataset | None, images: InputConfig) -> str:
        """This task as a file that the library beneath it runs by itself.

        encoder: of the right shape; its weights, which may be on the meta device, do not count. dataset: None where
        it is not there; the file then names the places where the library looks for it.
        """
        raise NotSupported(f"task {self.name!r} cannot be written as a file of another library")

    @abstractmethod
    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Measure `encoder`, which is the task's own copy, on `context.device`, with pretrained weights."""

    @abstractmethod
    def chance(self, dataset: Dataset) -> float:
        """The primary metric that knowing nothing would give, in its unit."""
