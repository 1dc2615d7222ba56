"""The contract of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Config, NotSupported, Stage, full_precision, mask_at_pixels, resize_mask


class TokenizerConfig(Config):
    """Options that every tokenizer has; the default vocabulary is BEiT's."""

    vocabulary: int = Field(8192, ge=2)
    """Number of words."""

    def identity(self) -> dict[str, Any]:
        """Every option that shapes tokens, as plain JSON data; of a file, its content and not its path."""
        return self.shaping()


class Tokenizer(nn.Module, ABC):
    """Turns images into words of a visual vocabulary, one for each patch of `patch_size` px.

    Its weights are frozen; before `prepare` they mean nothing.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    """Raised whenever the same options would give other tokens."""
    Config: ClassVar[type[TokenizerConfig]] = TokenizerConfig

    def __init__(self, config: TokenizerConfig, *, patch_size: int, channels: int) -> None:
        """Raises InputError: the options do not suit the images."""
        super().__init__()
        self.config = config
        self.patch_size, self.channels = patch_size, channels
        self.vocabulary = config.vocabulary

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> int64 [B, h, w], each in [0, vocabulary).

        In full precision under autocast too: rounding would change words.
        """
        with full_precision(images.device):
            return self._tokens(images.float())

    def decode(self, tokens: Tensor) -> Tensor:
        """int64 [B, h, w] -> normalised images [B, C, H, W]."""
        raise NotSupported(f"tokenizer {self.name!r} cannot turn words back into pixels")

    def paint(self, images: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Images whose masked patches show `words`, decoded among the words of the visible patches.

        Args:
            images: normalised, [B, C, H, W].
            mask: bool [B, Gh, Gw].
            words: int64 [B, h, w]; those of visible patches do not count.
        """
        masked = mask_at_pixels(mask, images)
        seen = self.tokens(images.masked_fill(masked, 0))
        words = torch.where(resize_mask(mask, words.shape[1:]), words, seen)
        return torch.where(masked, self.decode(words), images)

    @abstractmethod
    def prepare(self, stage: Stage) -> None:
        """Called once before `tokens` is used in training."""

    @abstractmethod
    def _tokens(self, images: Tensor) -> Tensor:
        """`tokens`, without gradient and in float32."""


class FittedTokenizer(Tokenizer):
    """A tokenizer that is made from the training images, as a stage of its own that later runs use again."""

    def prepare(self, stage: Stage) -> None:
        identity = {
            "tokenizer": self.name,
            "version": self.version,
            "patch_size": self.patch_size,
            **self.config.identity(),
        }
        self.load_state_dict(stage.compute_once(identity, lambda: self.fitted(stage)))

    @abstractmethod
    def fitted(self, stage: Stage) -> Mapping[str, Tensor]:
        """The state dict of this tokenizer, fitted to the images of `stage`."""
