"""What a method may use to get ready before it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mimbench.contract.input import InputConfig
from mimbench.contract.training import FitReport, TrainConfig


class Stage(ABC):
    """What the harness lends to `Method.prepare`: the training images, the trainer, and a place to keep things."""

    seed: int
    device: torch.device
    input: InputConfig
    """The recipe's [input]: how images are cropped and normalised."""
    classes: tuple[str, ...]
    """Names of the labels; () where images have none."""

    @abstractmethod
    def images(self) -> Iterator[Tensor]:
        """One pass over the training images, shuffled: float [B, C, S, S] as training sees them, on the device."""

    @abstractmethod
    def fit(self, model: nn.Module, config: TrainConfig, *, label: str, options: str) -> FitReport:
        """Train `model` on those images, resuming where a stopped run left off.

        options: the table that `config` comes from, as --set knows it: advice to the user names it.
        `model` has `step(batch: Batch, generator) -> StepOutput`, and may have `after_step(progress)`, as a Method.
        """

    @abstractmethod
    def compute_once(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What `make` returns, on the CPU: made once for each `identity`, then kept on disk.

        identity: plain JSON data with all that shapes it but images, input and seed, which are added here.

        Raises:
            InputError: what is kept is damaged, with the file's name and what to do.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """One line to the person at the terminal."""
