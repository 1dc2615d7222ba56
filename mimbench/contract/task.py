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
from mimbench.contract.data_choice import DataChoice
from mimbench.contract.dataset import Dataset, ImageSplit
from mimbench.contract.detections import MatchedDetections
from mimbench.contract.encoder import Encoder
from mimbench.contract.input import InputConfig
from mimbench.contract.method import Method
from mimbench.contract.planned import DataSizes, PlannedStep
from mimbench.contract.protocol import Protocol
from mimbench.contract.sample_values import GroupedSamples, SegmentedPixels
from mimbench.contract.scores import Column, SampleScores
from mimbench.contract.train_config import TrainConfig
from mimbench.contract.training import FitReport, Trainable
from mimbench.errors import NotSupported


@dataclass(frozen=True)
class Metric:
    """A number that a task reports. `low` and `high` bound it, in `unit`.

    The labels of axes and tables are in the display file of the task's package, see `mimbench.display`.
    """

    name: str
    unit: str
    low: float
    high: float
    higher_is_better: bool = True


@dataclass(frozen=True)
class Measured:
    """A metric's value, and the number of samples `n` that it is taken over."""

    value: float
    n: int


@dataclass(frozen=True)
class TaskResult:
    """What a task measured. It becomes the record."""

    metrics: Mapping[str, Measured]
    """Values by metric name. A declared metric may be missing if `details["absent"]` gives the reason."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Series of numbers, such as the loss of each epoch."""
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    """Files in the task's workdir, by what they show."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further results, such as a chosen regularisation, as plain JSON data."""
    cost: FitReport | None = None
    """Report of the task's training, if it trains."""
    scores: SampleScores | None = None
    """Scores of single samples. They become an artifact of the record."""
    by_sample: Mapping[str, Column | GroupedSamples] = field(default_factory=dict, compare=False)
    """By metric: its value on each sample, [N] in the order of the test split, whose mean is the metric. bool says
    which samples are right; the metric is then their percentage. Real values are in the metric's unit. They become an
    artifact of the record, from which `mimbench table --interval images` computes intervals."""
    pixels: SegmentedPixels | None = field(default=None, compare=False)
    """The same for metrics that are computed from counts of pixels."""
    detections: Sequence[MatchedDetections] = field(default=(), compare=False)
    """The same for metrics that are average precisions."""


class Fit(typing.Protocol):
    """The engine's trainer. It resumes an interrupted training, stops on a non-finite loss and shows progress."""

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
        """Train `model` in place.

        Args:
            model: what to train.
            loader: yields batches; its sampler has `set_epoch`.
            config: the training budget.
            label: what the progress bar shows.
            images_per_epoch: number of training images, for the report.
            options: path of the table that `config` comes from, for error messages. If it ends in "train", the table
                has all options of TrainConfig; otherwise it has at least `base_lr` and `batch_size`.

        Raises:
            RunError: the training fails, e.g. with a non-finite loss.
        """


class FeatureSource(typing.Protocol):
    """Frozen features of the task's encoder. They are extracted once per checkpoint and stored on disk."""

    def __call__(self, split: ImageSplit, which: str, *, layer: int, pooling: str) -> torch.Tensor:
        """Features of one layer.

        Args:
            split: the images.
            which: name of the split, as in `Dataset.parts`.
            layer: depth of the features; -1 is the last layer.
            pooling: "mean", "token" or "mean+token".

        Returns:
            float32 [N, D] on the CPU, in the order of the split.

        Raises:
            InputError: the encoder has no such layer or pooling.
        """

    def each_layer(self, split: ImageSplit, which: str, *, layers: Sequence[int], pooling: str) -> list[torch.Tensor]:
        """Features of several layers, float32 [N, D] each. Layers that are not stored yet are extracted in one pass."""


@dataclass(frozen=True)
class TaskContext:
    """What a task may use during one run."""

    seed: int
    device: torch.device
    workdir: Path
    """An empty folder for this run. Files in it that TaskResult names are kept."""
    input: InputConfig
    """The recipe's [input]: image size and normalisation of the pretraining."""
    fit: Fit
    features: FeatureSource
    say: Callable[[str], None]
    """Prints one line on the terminal."""
    method: Method | None = None
    """The whole pretrained method, on `device` and in evaluation mode, if the task declares `needs_reconstruction`."""
    pretrained_on: DataChoice | None = None
    """Which images of its dataset's train split the pretraining saw: a share, planted ones. They are images of the
    task's dataset if `content` is its fingerprint. None if nothing was trained, or if this is not known, as
    after a training from other weights (`pretrain.start`)."""


class TaskConfig(Config):
    """Options that every task has. The Config of a task extends it."""

    protocol: str | None = None
    """Name of the protocol that these options start from, if the task has protocols. Options may depart from it."""
    dataset: str | None = cosmetic(None)
    """Name of the dataset. Default: the task's default dataset, else the one of the pretraining."""
    data: dict[str, Any] = cosmetic({})
    """Options of the dataset, which override those of the recipe's [datasets.NAME]. The record's protocol holds the
    dataset's name and content instead of these options."""


class Task(ABC):
    """Something measured on a pretrained encoder."""

    name: ClassVar[str]
    version: ClassVar[str]
    """Raise it whenever the same encoder could get another score."""
    needs: ClassVar[frozenset[str]] = frozenset({"images", "labels"})
    """What the dataset must provide; see `Dataset.provides`."""
    encoder_needs: ClassVar[frozenset[str]] = frozenset()
    """What the encoder must be able to do: names from `ABILITIES`. `check` checks what depends on the options."""
    takes_clips: ClassVar[bool] = False
    """Whether the task takes datasets of clips (`Dataset.frames` above 1) too."""
    takes_images: ClassVar[bool] = True
    """False for a task that takes clips only."""
    trains_encoder: ClassVar[bool] = False
    """Whether the task changes the weights of the encoder."""
    needs_reconstruction: bool = False
    """Whether the task measures reconstructions of masked pixels. It gets TaskContext.method, and runs only with
    methods that reconstruct. The class states the usual case; an instance may need it with some options only."""
    metrics: ClassVar[tuple[Metric, ...]]
    """All metrics that the task reports; the first is the primary one."""
    waivers: ClassVar[Mapping[str, str]] = {}
    """Checks of `mimbench check` that may fail for this plugin: name of the check -> reason."""
    Config: ClassVar[type[TaskConfig]] = TaskConfig
    protocols: ClassVar[Mapping[str, Protocol]] = {}
    """Protocols by name; see `load_protocols`. Options of the recipe and the command line override them."""
    default_protocol: ClassVar[str | None] = None
    """Name of the protocol that applies if none is named."""
    default_dataset: ClassVar[str | None] = None
    """Name of the dataset if neither recipe nor command line names one; None means the dataset of the pretraining."""

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @classmethod
    def checkup(cls) -> list[str]:
        """Lines for `mimbench doctor`: which optional parts of this task are installed, and how to get the others."""
        return []

    def protocol(self) -> dict[str, Any]:
        """Everything that may change the score, as plain JSON data. The record holds it and its hash."""
        return {"task": self.name, "version": self.version, **self.config.shaping()}

    def protocol_on(self, device: torch.device) -> dict[str, Any]:
        """What else may change the score and depends on the device, as plain JSON data for the protocol."""
        return {}

    def depends_on_processes(self, encoder: Encoder, dataset: Dataset) -> str:
        """Why the task gives other scores on another number of processes; "" if rounding alone differs.

        With a reason, the number of processes becomes part of the protocol, if the task has options in
        `config.train`. Return "" if the trained model has `shares_batch`, see `mimbench.api.Trainable`, and the task
        evaluates the same batches on any number of processes.

        Args:
            encoder: as in `check`.
            dataset: as in `check`.
        """
        return "each process draws its own random numbers"

    def relevant_input(self, input_config: InputConfig) -> dict[str, Any]:
        """Options of the recipe's [input] that may change the score, as plain JSON data for the protocol.

        Override it if the task also uses the augmentation of [input].
        """
        return input_config.evaluation()

    def check(self, encoder: Encoder, dataset: Dataset) -> None:
        """Check that the task can run on this encoder and dataset. Called before anything is computed.

        Args:
            encoder: of the right shape; its weights may be on the meta device.

        Raises:
            InputError: it cannot; the message says why and what to do.
        """

    def check_method(self, method: type[Method]) -> None:
        """Check that the task can measure the reconstructions of a method. Called before anything is computed, if it
        declares `needs_reconstruction`.

        Raises:
            InputError: it cannot; the message says why and what to do.
        """

    def planned_step(self, encoder: Encoder, data: DataSizes, images: InputConfig) -> PlannedStep | None:
        """The training step of this task, for `mimbench plan`. None: the plan says that its memory is not known.

        Called with torch's default device set to "meta", so that building a model takes neither memory nor time.

        Args:
            encoder: of the right shape, on the meta device.
            data: numbers of the dataset, whose files may be absent.
            images: the recipe's [input].

        Raises:
            InputError: the task cannot run with these options.
        """
        return None

    def export(self, encoder: Encoder, dataset: Dataset | None, images: InputConfig) -> str:
        """Write the task as a config file that the library it is built on can run without mimbench.

        Args:
            encoder: of the right shape; its weights are not used and may be on the meta device.
            dataset: None if it is not on this machine; the file then has the library's usual paths.
            images: the recipe's [input].

        Raises:
            NotSupported: the task has no such file.
        """
        raise NotSupported(f"task {self.name!r} cannot be written as a file of another library")

    @abstractmethod
    def run(self, encoder: Encoder, dataset: Dataset, context: TaskContext) -> TaskResult:
        """Measure a pretrained encoder.

        Args:
            encoder: a copy for this task, on `context.device`.
            dataset: as `check` accepted it.
            context: seed, device, trainer, features and folder of this run.

        Raises:
            InputError: the data is unreadable.
            RunError: a training fails.
        """

    @abstractmethod
    def chance(self, dataset: Dataset) -> float:
        """The primary metric of random guesses (or of a constant answer), in its unit."""
