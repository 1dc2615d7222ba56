"""What an encoder says of itself before it computes: its name, its abilities, and the sizes of images and tokens."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from mimbench.contract.config import Config as BaseConfig
from mimbench.contract.input import image_shape
from mimbench.errors import InputError


class SizedEncoder(nn.Module, ABC):
    """The part of `Encoder` that needs no weights.

    Attributes:
        embed_dim: channels of the tokens from `embed`.
        out_dim: channels of the map from `encode` and of `features(-1)`.
        patch_size: px per token of `embed`.
        stride: px per cell of the map from `encode`.
        tubelet: frames per token of `embed`, and per cell of the map from `encode`.
        num_layers: depth; `features(layer=i)` takes i in [-num_layers, num_layers).
        num_prefix_tokens: class and register tokens before the patch tokens.
    """

    kind: ClassVar[str]
    """Family of encoders, such as "vit", for messages and for weights of other code bases."""
    can: frozenset[str] = frozenset()
    """What the encoder can do: names from `ABILITIES`, which methods and tasks need. If it depends on the options, the
    class lists the most that is possible, and `set_sizes` sets `self.can`."""
    version: ClassVar[str] = "1"
    """Raise it whenever the same config gives other weights or other features."""
    waivers: ClassVar[Mapping[str, str]] = {}
    """Checks of `mimbench check` that may fail for this plugin: name of the check -> reason."""
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    embed_dim: int
    out_dim: int
    patch_size: int
    stride: int
    num_layers: int
    num_prefix_tokens: int = 0
    tubelet: int = 1

    def __init__(self, config: BaseConfig, *, image_size: int, in_channels: int, frames: int = 1) -> None:
        """Build the encoder with initial weights from torch's global generator.

        Args:
            config: the encoder's options.
            image_size: side of the square images in px.
            in_channels: channels of the images.
            frames: of each clip; 1 for images. Only an encoder with "clips" in `can` gets it.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`, or `frames` its tubelet.
        """
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.in_channels = in_channels
        self.frames = frames
        self.set_sizes()

    @classmethod
    def depends_on_processes(cls, config: Any) -> str:
        """Why the same recipe gives other weights on another number of processes; "" if it does not, as by default.

        Drop path is drawn for the images of all processes, and batch norms take the statistics of all. Dropout and
        other random numbers are drawn by each process: then a reason here makes the number of processes part of the
        fingerprint.

        Args:
            config: an instance of `Config`.
        """
        return ""

    def set_sizes(self) -> None:
        """Set the attributes that the class documents, from `config` and `image_size`, without building weights.

        An encoder that defines it can be made without weights (`sizes_only`). `__init__` calls it.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`.
        """

    @classmethod
    def build(cls, config: BaseConfig, *, image_size: int, in_channels: int, frames: int = 1) -> Self:
        """An encoder for images, or for clips if `frames` is above 1.

        Raises:
            InputError: it takes no clips, or the sizes do not fit `config`.
        """
        clips = {"frames": frames} if frames > 1 else {}
        if clips and "clips" not in cls.can:
            raise InputError(
                f"input.frames {frames}: a {cls.kind} encoder takes images and no clips; set encoder.name to one that "
                'has "clips" in `can`, or input.frames to 1'
            )
        return cls(config, image_size=image_size, in_channels=in_channels, **clips)

    @classmethod
    def sizes_only(cls, config: BaseConfig, *, image_size: int, in_channels: int, frames: int = 1) -> Self:
        """An encoder that has sizes but no weights and computes nothing, such as for counting a method's masks.

        A class that does not define `set_sizes` gives a whole encoder.

        Raises:
            InputError: `image_size` does not fit the patch size or window of `config`.
        """
        if cls.set_sizes is SizedEncoder.set_sizes or (frames > 1 and "clips" not in cls.can):
            return cls.build(config, image_size=image_size, in_channels=in_channels, frames=frames)
        encoder = cls.__new__(cls)
        SizedEncoder.__init__(encoder, config, image_size=image_size, in_channels=in_channels, frames=frames)
        return encoder

    @property
    def grid(self) -> tuple[int, ...]:
        """(rows, columns) of the tokens from `embed` at `image_size`; (frames / tubelet, rows, columns) of a clip."""
        return self.grid_at(self.image_size)

    @property
    def map_grid(self) -> tuple[int, ...]:
        """Cells of the map from `encode` at `image_size`, by the same axes as `grid`."""
        return self._cells(self.image_size, self.stride)

    def grid_at(self, image_size: int) -> tuple[int, ...]:
        """`grid` for images or clips of `image_size` px."""
        return self._cells(image_size, self.patch_size)

    def _cells(self, image_size: int, step: int) -> tuple[int, ...]:
        time = (self.frames // self.tubelet,) if self.frames > 1 else ()
        return (*time, *(image_size // step,) * 2)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W), or clip, (C, T, H, W), at `image_size`."""
        return image_shape(self.in_channels, self.image_size, self.frames)
