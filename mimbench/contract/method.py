"""The method contract: what a masked-image-modeling method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mimbench.contract.config import Config as BaseConfig
from mimbench.contract.encoder import Encoder
from mimbench.contract.setup import ModelSetup
from mimbench.contract.stage import Stage
from mimbench.contract.training import Batch, StepOutput
from mimbench.errors import InputError, NotSupported


class Method(nn.Module, ABC):
    """A pretraining method around an encoder.

    A mask is bool [B, Gh, Gw], True = hidden, on any grid that tiles the image (mimbench.masks
    resizes it). A subclass gives `target` and `predict`; everything else has a default.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever the same recipe would give other weights."""
    paper: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    """url@commit of the code that this follows."""
    encoders: ClassVar[tuple[str, ...]] = ("vit",)
    supervision: ClassVar[tuple[str, ...]] = ()
    """What besides pixels it learns from, e.g. ("labels",); () = pixels only."""
    pretrains: ClassVar[bool] = True
    """False: the encoder is exported as initialised (a control)."""
    official_names: ClassVar[Mapping[str, str | None]] = {}
    """Where the method's own parameters are named otherwise in its official code: prefix there -> prefix here.

    None: not stored here but computed. Encoders need no entry; see mimbench.convert.
    """
    official_configs: ClassVar[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], ModelSetup]]] = {}
    """Official repository, as files of golden vectors name it -> a function that gives the same model in mimbench.

    Its arguments are the file's `config` (arguments of the official model) and the whole `meta`. It raises InputError
    for a part that mimbench lacks, and KeyError, TypeError or ValueError for an incomplete config.
    """
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, config: BaseConfig, encoder: Encoder) -> None:
        """Raises InputError where the config does not suit the encoder or its image size."""
        super().__init__()
        self.require_kind(encoder.kind)
        self.config = config
        self.encoder = encoder

    @classmethod
    def require_kind(cls, kind: str) -> None:
        """Raise InputError for a kind of encoder that the method does not take."""
        if kind not in cls.encoders:
            raise InputError(f"method {cls.name!r} does not take a {kind} encoder; it takes: {', '.join(cls.encoders)}")

    def prepare(self, stage: Stage) -> None:
        """Called once before training, with the weights still on the CPU: to fit a tokenizer, for instance.

        What it fits belongs into the method's state, so that a stored checkpoint needs no fitting again.
        """

    @abstractmethod
    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """bool [batch, Gh, Gw] on the generator's device, True = hidden."""

    @abstractmethod
    def target(self, images: Tensor) -> Tensor:
        """What is to be predicted, without gradient: pixels, tokens, features."""

    @abstractmethod
    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """The prediction, in the shape of `target`; it may look at visible pixels only."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Scalar to be minimised."""

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """images: float [B, C, H, W], normalised."""
        with torch.no_grad():
            target = self.target(images)
        return StepOutput(self.loss(self.predict(images, mask), target, mask))

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        """One training step; override to use more than one view, labels, or no mask."""
        return self(batch.images, self.sample_mask(len(batch.images), generator))

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Images [B, C, H, W] (normalised) with the hidden part as this method predicts it."""
        raise NotSupported(f"method {self.name!r} does not predict pixels")

    def sample_masked(
        self, images: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One draw of the hidden part, where a distribution is predicted; images are generated with it step by step.

        Returns images as `reconstruct` does, and the log-probability of what was drawn, float [B, h, w] on any grid.
        At temperature 0 the likeliest is drawn. `generator` is on the images' device.
        """
        raise NotSupported(f"method {self.name!r} predicts one image, not a distribution of images")

    @property
    def reconstruction_note(self) -> str:
        """One line under pictures: how pixels come about, and whether `reconstruct` looks at more than visible ones."""
        return ""

    def after_step(self, progress: float) -> None:
        """Called after every optimizer step, e.g. for EMA teachers; progress in [0, 1]."""

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions, by name, that are not decayed; 1-D ones never are."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def exported_encoder(self) -> Encoder:
        """The encoder that the downstream tasks get."""
        return self.encoder
