"""The backbone contract: what every method and task may ask of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mimbench.contract.config import Config as BaseConfig
from mimbench.errors import InputError, nearest
from mimbench.masks import resize_mask

Pooling = Literal["mean", "token", "mean+token"]
"""One vector an image: the mean over space, the class token, or both side by side."""


@dataclass(frozen=True)
class Features:
    """What an encoder sees in a batch, at one depth.

    pooled: [B, D], the mean over space. dense: [B, D, h, w]. prefix: [B, P, D], P may be 0; the first
    is the class token where there is one.
    """

    pooled: Tensor
    dense: Tensor
    prefix: Tensor

    def pool(self, pooling: str) -> Tensor:
        """[B, D], or [B, 2 D] for "mean+token". `Encoder.check_pooling` says beforehand what is there to be pooled."""
        if pooling == "mean":
            return self.pooled
        token = self.prefix[:, 0]
        return token if pooling == "token" else torch.cat((self.pooled, token), 1)


class Encoder(nn.Module, ABC):
    """A backbone for square images of `image_size` px that can also take other sizes densely.

    Attributes:
        embed_dim: channels of `embed`.
        out_dim: channels of `encode` and of `features(-1)`.
        patch_size: px per token of `embed`.
        stride: px per cell of `encode`'s map.
        num_layers: depth; `features(layer=i)` takes i in [0, num_layers), or negative from the end.
        num_prefix_tokens: class or register tokens before the patches.
    """

    kind: ClassVar[str]
    """Family that methods declare they accept: "vit", "swin" or "convnet"."""
    version: ClassVar[str] = "1"
    """Raised whenever the same config would give other weights or other features."""
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    embed_dim: int
    out_dim: int
    patch_size: int
    stride: int
    num_layers: int
    num_prefix_tokens: int = 0

    def __init__(self, config: BaseConfig, *, image_size: int, in_channels: int) -> None:
        """Build with fresh weights from the global torch generator.

        Raises:
            InputError: `image_size` does not suit the patch or window of `config`.
        """
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.in_channels = in_channels

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of `embed` at `image_size`, as (rows, columns)."""
        return (self.image_size // self.patch_size,) * 2

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> patch tokens [B, h, w, D], before positions and prefix tokens."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, h, w, D] as `embed` gives them -> the final map [B, D', h', w']."""

    def encode_masked(self, images: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        """The final map, as `encode` gives it, with `token` [1, 1, 1, D] in place of every patch that `mask` touches.

        Where the stem overlaps (ResNet), visible patches still hold hidden pixels: blank them in `images` first.
        """
        tokens = self.embed(images)
        hidden = resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1)
        return self.encode(torch.where(hidden, token.to(tokens.dtype), tokens))

    def encode_visible(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Encode only the tokens at `keep`; the rest costs nothing (MAE).

        tokens: [B, h, w, D]. keep: int64 [B, K], row-major indices, in the order wanted.
        Returns [B, P + K, D], prefix tokens first.
        """
        raise InputError(f"a {self.kind} encoder cannot drop hidden patches; use a vit encoder")

    @abstractmethod
    def layers(self, images: Tensor, last: int = -1, *, final_norm: bool = True) -> list[Features]:
        """Features after each layer, from the front up to and including `last`, all from one run.

        final_norm: -1, the last layer, passes through the final norm, as `encode` does; False: it does not.
        """

    def features(self, images: Tensor, layer: int = -1) -> Features:
        """Features after `layer`. -1, the last, passes through the final norm, as `encode` does."""
        return self.layers(images, layer)[-1]

    def layer_index(self, layer: int) -> int:
        """`layer` counted from the front. Raises InputError where this encoder has no such layer."""
        if not -self.num_layers <= layer < self.num_layers:
            raise InputError(f"layer {layer} is outside this encoder's {self.num_layers} layers")
        return layer % self.num_layers

    def check_pooling(self, pooling: str) -> None:
        """Raise InputError for a pooling that is unknown, or needs a class token where this encoder has none."""
        known = ("mean", "token", "mean+token")
        if pooling not in known:
            raise InputError(f"unknown pooling {pooling!r}{nearest(pooling, known)}")
        if pooling != "mean" and not self.num_prefix_tokens:
            raise InputError(f'pooling {pooling!r} needs a class token, which a {self.kind} encoder lacks; use "mean"')

    @abstractmethod
    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Maps for dense prediction at any H, W that `patch_size` divides.

        One [B, D, H/s, W/s] for each s in `pyramid_strides`, finest first.
        """

    @property
    @abstractmethod
    def pyramid_strides(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def pyramid_dims(self) -> tuple[int, ...]: ...

    def use_windows(self, window: int, global_blocks: tuple[int, ...]) -> None:
        """Attend within `window` x `window` tokens in `pyramid`, but for the global blocks (ViTDet)."""
        raise InputError(f"a {self.kind} encoder has no windowed attention to choose; leave window at 0")

    def add_relative_positions(self, image_size: int) -> None:
        """Learn relative positions too, zero at first, within the windows of `pyramid` at `image_size`.

        After `use_windows`. An encoder that was pretrained with relative positions keeps those.
        """
        raise InputError(f"a {self.kind} encoder takes no relative positions; set relative_positions to false")

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Depth of a parameter for layer decay: 0 for the stem, 1 to num_layers for the blocks.

        num_layers + 1 for what comes after them.
        """

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that no recipe decays; 1-D ones never are."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time."""
        raise InputError(f"a {self.kind} encoder has no gradient checkpointing")
