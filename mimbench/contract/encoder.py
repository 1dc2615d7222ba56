"""The encoder contract: what methods and tasks call on a backbone."""

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
"""One vector per image: the mean over space, the class token, or the two concatenated."""


@dataclass(frozen=True)
class Features:
    """Features of a batch at one depth.

    Attributes:
        pooled: [B, D], the mean over space.
        dense: [B, D, h, w], one vector per patch or cell.
        prefix: [B, P, D], class and register tokens. The class token comes first; P is 0 without such tokens.
    """

    pooled: Tensor
    dense: Tensor
    prefix: Tensor

    def pool(self, pooling: str) -> Tensor:
        """One vector per image: [B, D], or [B, 2 D] for "mean+token".

        "token" needs a class token. `Encoder.check_pooling` checks that in advance.
        """
        if pooling == "mean":
            return self.pooled
        token = self.prefix[:, 0]
        return token if pooling == "token" else torch.cat((self.pooled, token), 1)


class Encoder(nn.Module, ABC):
    """A backbone for square images of `image_size` px. `pyramid` also takes other sizes.

    Attributes:
        embed_dim: channels of the tokens from `embed`.
        out_dim: channels of the map from `encode` and of `features(-1)`.
        patch_size: px per token of `embed`.
        stride: px per cell of the map from `encode`.
        num_layers: depth; `features(layer=i)` takes i in [-num_layers, num_layers).
        num_prefix_tokens: class and register tokens before the patch tokens.
    """

    kind: ClassVar[str]
    """Family of encoders: "vit", "swin" or "convnet". Methods declare which families they accept."""
    version: ClassVar[str] = "1"
    """Raise it whenever the same config gives other weights or other features."""
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    embed_dim: int
    out_dim: int
    patch_size: int
    stride: int
    num_layers: int
    num_prefix_tokens: int = 0

    def __init__(self, config: BaseConfig, *, image_size: int, in_channels: int) -> None:
        """Build the encoder with initial weights from torch's global generator.

        Args:
            config: the encoder's options.
            image_size: side of the square images in px.
            in_channels: channels of the images.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`.
        """
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.in_channels = in_channels
        self.set_sizes()

    def set_sizes(self) -> None:
        """Set the attributes that the class documents, from `config` and `image_size`, without building weights.

        An encoder that defines it can be made without weights (`sizes_only`). `Encoder.__init__` calls it.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`.
        """

    @classmethod
    def sizes_only(cls, config: BaseConfig, *, image_size: int, in_channels: int) -> Encoder:
        """An encoder that has sizes but no weights and computes nothing, such as for counting a method's masks.

        A class that does not define `set_sizes` gives a whole encoder.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`.
        """
        if cls.set_sizes is Encoder.set_sizes:
            return cls(config, image_size=image_size, in_channels=in_channels)
        encoder = cls.__new__(cls)
        Encoder.__init__(encoder, config, image_size=image_size, in_channels=in_channels)
        return encoder

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the tokens from `embed` at `image_size`."""
        return (self.image_size // self.patch_size,) * 2

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> patch tokens [B, h, w, embed_dim], without positions and prefix tokens."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Patch tokens [B, h, w, embed_dim] from `embed` -> the final map [B, out_dim, h', w']."""

    def encode_masked(self, images: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        """Encode images with a mask token in place of each masked patch (SimMIM, BEiT).

        If patches overlap (ResNet), visible tokens still contain masked pixels. Blank those in `images` first.

        Args:
            images: [B, C, H, W].
            mask: bool [B, Gh, Gw] on any grid, True = masked. A patch that it touches counts as masked.
            token: [1, 1, 1, embed_dim].

        Returns:
            The final map [B, out_dim, h', w'].
        """
        tokens = self.embed(images)
        masked = resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1)
        return self.encode(torch.where(masked, token.to(tokens.dtype), tokens))

    def encode_visible(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Encode some of the tokens only, so that masked patches cost nothing (MAE).

        Args:
            tokens: [B, h, w, embed_dim].
            keep: indices of K tokens in row-major order, int64 [B, K]. The output has the same order.

        Returns:
            [B, P + K, out_dim], the P prefix tokens first.

        Raises:
            InputError: this kind of encoder cannot do that.
        """
        raise InputError(f"a {self.kind} encoder cannot drop masked patches; use a vit encoder")

    @abstractmethod
    def layers(self, images: Tensor, last: int = -1, *, final_norm: bool = True) -> list[Features]:
        """Features after each layer up to and including `last`, from one forward pass.

        Args:
            images: [B, C, H, W].
            last: index of the last layer to compute; negative values count from the end.
            final_norm: apply the final norm to the features of the encoder's last layer, as `encode` does.
        """

    def features(self, images: Tensor, layer: int = -1) -> Features:
        """Features after `layer`. Those of the last layer (-1) have passed the final norm, as in `encode`."""
        return self.layers(images, layer)[-1]

    def layer_index(self, layer: int) -> int:
        """`layer` as a non-negative index. Raises InputError if this encoder has no such layer."""
        if not -self.num_layers <= layer < self.num_layers:
            raise InputError(f"layer {layer} is outside this encoder's {self.num_layers} layers")
        return layer % self.num_layers

    def check_pooling(self, pooling: str) -> None:
        """Raise InputError if `pooling` is unknown, or needs a class token that this encoder does not have."""
        known = ("mean", "token", "mean+token")
        if pooling not in known:
            raise InputError(f"unknown pooling {pooling!r}{nearest(pooling, known)}")
        if pooling != "mean" and not self.num_prefix_tokens:
            raise InputError(
                f'pooling {pooling!r} needs a class token, which a {self.kind} encoder does not have; use "mean"'
            )

    @abstractmethod
    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Feature maps for dense prediction.

        Args:
            images: [B, C, H, W]; `patch_size` divides H and W.

        Returns:
            One map [B, D, H/s, W/s] per stride s of `pyramid_strides`, the finest first.
        """

    @property
    @abstractmethod
    def pyramid_strides(self) -> tuple[int, ...]:
        """px per cell of each map of `pyramid`."""

    @property
    @abstractmethod
    def pyramid_dims(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""

    def use_windows(self, window: int, global_blocks: tuple[int, ...]) -> None:
        """Restrict attention in `pyramid` to `window` x `window` tokens, except in the global blocks (ViTDet).

        Raises:
            InputError: this kind of encoder has no such windows, or there is no such block.
        """
        raise InputError(f"a {self.kind} encoder has no windowed attention to choose; leave window at 0")

    def add_relative_positions(self, image_size: int) -> None:
        """Add learned relative positions, initially zero, for the windows of `pyramid` at `image_size` px.

        Call it after `use_windows`. An encoder that was pretrained with relative positions keeps those.

        Raises:
            InputError: this kind of encoder takes no relative positions.
        """
        raise InputError(f"a {self.kind} encoder takes no relative positions; set relative_positions to false")

    @abstractmethod
    def layer_of(self, parameter: str) -> int:
        """Depth of a parameter, for layer decay: 0 for the stem, 1 to num_layers for the blocks, num_layers + 1 after.

        Args:
            parameter: its name in `named_parameters()`.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two or more dimensions that get no weight decay. 1-D parameters never get any."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass. It saves memory and takes about a third more time.

        Raises:
            InputError: this kind of encoder cannot do that.
        """
        raise InputError(f"a {self.kind} encoder has no gradient checkpointing")
