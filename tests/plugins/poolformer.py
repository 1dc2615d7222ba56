"""An encoder with several stages: PoolFormer (arXiv:2111.11418), from timm's stages, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Config, Encoder, Features, InputError


class PoolFormerConfig(Config):
    patch_size: int = Field(2, ge=1)
    dims: tuple[int, ...] = (16, 32)
    """Channels of each stage; each stage but the first halves the grid."""
    depths: tuple[int, ...] = (1, 1)


class PoolFormer(Encoder):
    """Blocks mix tokens by average pooling. A layer is a block; the downsampling belongs to the block after it."""

    kind = "poolformer"
    version = "1"
    can = frozenset({"mask-tokens", "separate-patches", "pyramid", "any-size"})
    Config = PoolFormerConfig
    config: PoolFormerConfig

    def __init__(self, config: PoolFormerConfig, *, image_size: int, in_channels: int) -> None:
        from timm.layers import LayerNorm2d
        from timm.models.metaformer import MetaFormerStage, Pooling

        super().__init__(config, image_size=image_size, in_channels=in_channels)
        dims, depths = config.dims, config.depths
        self.stem = nn.Conv2d(in_channels, dims[0], config.patch_size, config.patch_size)
        # A stage halves the grid if its first two arguments differ, or else keeps it.
        self.stages = nn.ModuleList(
            MetaFormerStage(before, dim, depth, Pooling, dp_rates=[0.0] * depth)
            for before, dim, depth in zip((dims[0], *dims), dims, depths, strict=False)
        )
        self.norm = LayerNorm2d(dims[-1])

    def set_sizes(self) -> None:
        dims, depths = self.config.dims, self.config.depths
        if len(dims) != len(depths) or not depths or min(depths) < 1 or any(a == b for a, b in pairwise(dims)):
            raise InputError(
                f"encoder.dims {list(dims)} and encoder.depths {list(depths)}: give one number per stage, a depth of 1 "
                "or more, and other channels than the stage before"
            )
        self.patch_size = self.config.patch_size
        self.stride = self.patch_size * 2 ** (len(dims) - 1)
        self.embed_dim, self.out_dim, self.num_layers = dims[0], dims[-1], sum(depths)
        if self.image_size % self.stride:
            raise InputError(f"image size {self.image_size} px is not a multiple of the stride, {self.stride} px")

    def embed(self, images: Tensor) -> Tensor:
        return self.stem(images).permute(0, 2, 3, 1)

    def blocks(self, tokens: Tensor) -> list[Tensor]:
        """The map after each block, before the final norm."""
        x, maps = tokens.permute(0, 3, 1, 2), []
        for stage in self.stages:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = block(x)
                maps.append(x)
        return maps

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        self.check_keep(keep)
        maps = self.blocks(tokens)
        if final_norm:
            maps[-1] = self.norm(maps[-1])
        return [Features.from_map(maps[index]) for index in self.layer_indices(layers)]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        maps = self.blocks(self.embed(images))
        return [maps[end - 1] for end in accumulate(self.config.depths)]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return tuple(self.patch_size * 2**stage for stage in range(len(self.config.dims)))

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return self.config.dims

    def layer_of(self, parameter: str) -> int:
        parts = parameter.split(".")
        if parts[0] != "stages":
            return 0 if parts[0] == "stem" else self.num_layers + 1
        block = int(parts[3]) if parts[2] == "blocks" else 0
        return sum(self.config.depths[: int(parts[1])]) + block + 1
