"""The method contract: what a masked-image-modeling method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mimbench.contract.config import Config as BaseConfig
from mimbench.contract.encoder import Encoder
from mimbench.contract.setup import ReadConfig
from mimbench.contract.stage import Stage
from mimbench.contract.training import Batch, StepOutput
from mimbench.errors import InputError, NotSupported


class Method(nn.Module, ABC):
    """A pretraining method around an encoder.

    A mask is bool [B, Gh, Gw], True = masked, on any grid that tiles the image; `resize_mask` changes the grid. A
    subclass defines `sample_mask`, `target`, `predict` and `loss`. Everything else has a default.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Raise it whenever the same recipe gives other weights."""
    paper: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    """url@commit of the code that the method follows."""
    encoders: ClassVar[tuple[str, ...]] = ("vit",)
    """Kinds of encoders that the method takes."""
    supervision: ClassVar[tuple[str, ...]] = ()
    """What the method learns from besides pixels, e.g. ("labels",); empty for pixels only."""
    pretrains: ClassVar[bool] = True
    """False for a control whose encoder stays as initialised."""
    official_names: ClassVar[Mapping[str, str | None]] = {}
    """Parameters of the method that have other names in its official code: prefix there -> prefix here.

    None marks a parameter that is computed here instead of stored. Parameters of encoders need no entry; see
    mimbench.convert.
    """
    official_configs: ClassVar[Mapping[str, ReadConfig]] = {}
    """Official repository, as files of golden vectors name it -> a function that gives the same model in mimbench.

    Its arguments are the file's `config` (arguments of the official model) and the whole `meta`. It raises InputError
    for a part that mimbench lacks, and KeyError, TypeError or ValueError for an incomplete config.
    """
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, config: BaseConfig, encoder: Encoder) -> None:
        """Build the parts around `encoder`.

        Raises:
            InputError: the config does not fit the encoder or its image size.
        """
        super().__init__()
        self.require_kind(encoder.kind)
        self.config = config
        self.encoder = encoder

    @classmethod
    def require_kind(cls, kind: str) -> None:
        """Raise InputError if the method does not take encoders of this kind."""
        if kind not in cls.encoders:
            raise InputError(f"method {cls.name!r} does not take a {kind} encoder; it takes: {', '.join(cls.encoders)}")

    @classmethod
    def masks_only(cls, config: Any, encoder: Encoder) -> Method:
        """A method to call `sample_mask` of, and nothing else.

        The default builds all parts. Override it if the parts are slow to import or build.

        Args:
            config: an instance of `Config`.
            encoder: may be one without weights, from `Encoder.sizes_only`.
        """
        return cls(config, encoder)

    def prepare(self, stage: Stage) -> None:
        """Fit what training needs, such as a tokenizer. Called once before training, with the weights on the CPU.

        Keep the result in parameters or buffers, so that a checkpoint holds it.
        """

    @abstractmethod
    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Masks for a batch: bool [batch, Gh, Gw] on the generator's device, True = masked."""

    @abstractmethod
    def target(self, images: Tensor) -> Tensor:
        """The target of the prediction (pixels, tokens, features) for images [B, C, H, W]. It gets no gradient."""

    @abstractmethod
    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """The prediction, in the shape that `loss` expects.

        Args:
            images: float [B, C, H, W], normalised. The prediction must depend on visible pixels only.
            mask: bool [B, Gh, Gw], True = masked.
        """

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Scalar to minimise, from the outputs of `predict` and `target`."""

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """Loss of normalised images float [B, C, H, W] under a mask bool [B, Gh, Gw], True = masked."""
        with torch.no_grad():
            target = self.target(images)
        return StepOutput(self.loss(self.predict(images, mask), target, mask))

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        """One training step. Override it to use several views, labels or no mask.

        Args:
            batch: images and, if `supervision` names them, labels.
            generator: on the images' device, freshly seeded for this step.
        """
        return self(batch.images, self.sample_mask(len(batch.images), generator))

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Images with the masked part as this method predicts it.

        Args:
            images: float [B, C, H, W], normalised.
            mask: bool [B, Gh, Gw], True = masked.

        Returns:
            float [B, C, H, W], normalised.

        Raises:
            NotSupported: the method does not predict pixels.
        """
        raise NotSupported(f"method {self.name!r} does not predict pixels")

    def sample_masked(
        self, images: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the masked part from the predicted distribution, e.g. of tokens. Images are generated with it.

        Args:
            images: float [B, C, H, W], normalised.
            mask: bool [B, Gh, Gw], True = masked.
            temperature: of the distribution; 0 takes the most probable value.
            generator: on the images' device.

        Returns:
            Images as from `reconstruct`, and the log-probability of the drawn values, float [B, h, w] on any grid.

        Raises:
            NotSupported: the method predicts a single image.
        """
        raise NotSupported(f"method {self.name!r} predicts one image, not a distribution of images")

    @property
    def reconstruction_note(self) -> str:
        """One line under pictures: how pixels are predicted, and whether `reconstruct` uses masked pixels too."""
        return ""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, e.g. to update an EMA teacher; `progress` of the training is in [0, 1]."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two or more dimensions that get no weight decay. 1-D parameters never get any."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def exported_encoder(self) -> Encoder:
        """The encoder that downstream tasks get."""
        return self.encoder
