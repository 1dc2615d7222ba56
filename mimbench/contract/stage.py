"""What a method may use in `Method.prepare`, before it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.contract.input import InputConfig
from mimbench.contract.train_config import TrainConfig
from mimbench.contract.training import FitReport


class Stage(ABC):
    """The training images, the trainer and a cache on disk, for `Method.prepare`."""

    seed: int
    device: torch.device
    input: InputConfig
    """The recipe's [input]: how images are cropped and normalised."""
    classes: tuple[str, ...]
    """Class names, indexed by label; empty if the images have no labels."""

    @abstractmethod
    def images(self) -> Iterator[Tensor]:
        """One shuffled pass over the training images, augmented as in training: float [B, C, S, S] on the device."""

    @abstractmethod
    def fit(self, model: nn.Module, config: TrainConfig, *, label: str, options: str) -> FitReport:
        """Train a model on the training images. An interrupted training is resumed.

        Args:
            model: has `step(batch: Batch, generator) -> StepOutput`, and may have the hooks of a Method:
                `before_update`, `after_step`, `no_weight_decay`, `optimizer_parts`.
            config: the training budget.
            label: what the progress bar shows.
            options: path of the table that `config` comes from, such as "method.tokenizer.train", for error messages.
        """

    @abstractmethod
    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of `make()` on the CPU. They are computed once per `identity` and then read from disk.

        Args:
            identity: plain JSON data with everything that the tensors depend on, except images, input and seed, which
                are added here.
            make: computes named tensors.

        Raises:
            InputError: the stored file is damaged; the message names it and says what to do.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """Print one line on the terminal."""
