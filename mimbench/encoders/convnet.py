"""Convolutional encoders from timm's parts: ConvNeXt (arXiv:2201.03545; V2: 2301.00808), ResNet (arXiv:1512.03385)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks, run_block
from mimbench.contract import Config, Depth, Encoder, Features, InputError, added

EPS = 1e-6


class ConvNet(Encoder):
    """What both have in common. `embed` is the stem; a layer is a residual block, counted through the stages.

    A block that halves the grid includes the downsampling. Maps have ceil(H / s) rows if s does not divide H.
    """

    kind: ClassVar[str] = "convnet"
    can: frozenset[str] = frozenset(
        {"mask-tokens", "pyramid", "any-size", "drop-path", "grad-checkpointing", "sparse-convolution"}
    )
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    body: Any  # timm's modules carry no types
    grad_checkpointing = False

    def _shape(self, patch_size: int, stem_dim: int, dims: Sequence[int], depths: Sequence[int]) -> None:
        self.dims, self.depths, self.patch_size = tuple(dims), tuple(depths), patch_size
        self.embed_dim, self.out_dim, self.num_layers = stem_dim, dims[-1], sum(depths)
        self.stride = patch_size * 2 ** (len(dims) - 1)
        if self.image_size % self.stride:
            raise InputError(
                f"image size {self.image_size} px is not a multiple of the encoder's stride, {self.stride} px; "
                "change input.image_size, or give the encoder fewer stages"
            )

    @abstractmethod
    def _stem(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H / patch_size, W / patch_size]."""

    @abstractmethod
    def _enter(self, stage: int, x: Tensor) -> Tensor:
        """What comes before the blocks of a stage."""

    @abstractmethod
    def _stage(self, stage: int) -> nn.Sequential:
        """The blocks of a stage."""

    @abstractmethod
    def _norm(self, x: Tensor) -> Tensor:
        """The final norm, of a map."""

    @abstractmethod
    def _level(self, x: Tensor) -> Tensor:
        """A stage's output as `pyramid` gives it."""

    def embed(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"an image of {height} x {width} px is not a multiple of the stem, {self.patch_size} px")
        return self._stem(images).permute(0, 2, 3, 1)

    def forward_layers(
        self,
        tokens: Tensor,
        layers: Sequence[int] | None = None,
        *,
        keep: Tensor | None = None,
        final_norm: bool = True,
    ) -> list[Features]:
        self.check_keep(keep)
        indices = self.layer_indices(layers)
        outputs = self._blocks(tokens, last=max(indices))
        if final_norm and len(outputs) == self.num_layers:
            outputs[-1] = self._norm(outputs[-1])
        return [Features.from_map(outputs[index]) for index in indices]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        outputs = self._blocks(self.embed(images))
        ends = [blocks - 1 for blocks in accumulate(self.depths)]
        return [*(self._level(outputs[end]) for end in ends[:-1]), self._norm(outputs[-1])]

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return tuple(self.patch_size * 2**stage for stage in range(len(self.dims)))

    @property
    def pyramid_dims(self) -> tuple[int, ...]:
        return self.dims

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def _block_layer(self, stage: int, block: int) -> int:
        return sum(self.depths[:stage]) + block + 1

    def _blocks(self, tokens: Tensor, last: int | None = None) -> list[Tensor]:
        """Every block's output [B, D, h, w], up to block `last`, before the final norm."""
        x, outputs = tokens.permute(0, 3, 1, 2), []
        for stage in range(len(self.depths)):
            x = self._enter(stage, x)
            for block in self._stage(stage):
                recompute = self.grad_checkpointing and self.training
                x = run_block(block, x, recompute=recompute)
                outputs.append(x)
                if len(outputs) - 1 == last:
                    return outputs
        return outputs


class ConvNeXtConfig(Config):
    """A ConvNeXt; the defaults are ConvNeXt-T. ConvNeXt V2 has grn = true and layer_scale = "none"."""

    patch_size: int = Field(4, ge=1)
    """Side and stride of the stem's one convolution, px."""
    dims: tuple[int, ...] = (96, 192, 384, 768)
    """Channels of each stage; each but the first halves the grid."""
    depths: tuple[Depth, ...] = (3, 3, 9, 3)
    layer_scale: float | None = Field(1e-6, gt=0)
    """Initial value of LayerScale; None: no LayerScale."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    grn: bool = added(False)
    """Global response normalisation in each block, as in ConvNeXt V2: each channel is scaled by its norm over the map,
    relative to the other channels."""


class ConvNeXt(ConvNet):
    """A ConvNeXt of any number of stages, its parameters named and initialised as in timm's ConvNeXt.

    The final norm acts on the map, before pooling (timm's head_norm_first); the original pools first.
    """

    can: frozenset[str] = ConvNet.can | {"separate-patches", "normed-tokens", "response-norm"}
    version: ClassVar[str] = "1"
    Config = ConvNeXtConfig
    config: ConvNeXtConfig

    def __init__(self, config: ConvNeXtConfig, *, image_size: int, in_channels: int) -> None:
        from timm.layers import LayerNorm, LayerNorm2d, calculate_drop_path_rates
        from timm.models.convnext import ConvNeXtStage

        super().__init__(config, image_size=image_size, in_channels=in_channels)
        rates = calculate_drop_path_rates(config.drop_path, config.depths, stagewise=True)
        stem = nn.Conv2d(in_channels, config.dims[0], config.patch_size, config.patch_size)
        self.body = nn.ModuleDict(
            {
                "stem": nn.Sequential(stem, LayerNorm2d(config.dims[0], eps=EPS)),
                "stages": nn.ModuleList(
                    ConvNeXtStage(
                        config.dims[max(0, stage - 1)],
                        dim,
                        stride=2 if stage else 1,
                        depth=config.depths[stage],
                        drop_path_rates=rates[stage],
                        ls_init_value=config.layer_scale,
                        use_grn=config.grn,
                        norm_layer=partial(LayerNorm2d, eps=EPS),
                        norm_layer_cl=partial(LayerNorm, eps=EPS),
                    )
                    for stage, dim in enumerate(config.dims)
                ),
                "norm_pre": LayerNorm2d(config.dims[-1], eps=EPS),
            }
        )
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        mark_blocks(block for stage in range(len(config.dims)) for block in self._stage(stage))

    def set_sizes(self) -> None:
        config = self.config
        _check_stages(config.dims, config.depths)
        if not config.grn:
            self.can = self.can - {"response-norm"}
        self._shape(config.patch_size, config.dims[0], config.dims, config.depths)

    def layer_of(self, parameter: str) -> int:
        """Downsampling belongs to the block that follows it."""
        parts = parameter.removeprefix("body.").split(".")
        if parts[0] == "stages":
            return self._block_layer(int(parts[1]), int(parts[3]) if parts[2] == "blocks" else 0)
        return 0 if parts[0] == "stem" else self.num_layers + 1

    def _stem(self, images: Tensor) -> Tensor:
        return self.body["stem"](images)

    def _enter(self, stage: int, x: Tensor) -> Tensor:
        if stage:
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        return self.body["stages"][stage].downsample(x)

    def _stage(self, stage: int) -> nn.Sequential:
        return self.body["stages"][stage].blocks

    def _norm(self, x: Tensor) -> Tensor:
        return self.body["norm_pre"](x)

    def _level(self, x: Tensor) -> Tensor:
        """Normalised over its channels, without weights: the projection of a detector's neck takes their part."""
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=EPS).permute(0, 3, 1, 2)


def convnext_blocks(dim: int, depth: int) -> nn.Sequential:
    """Blocks of ConvNeXt V2 on maps [B, dim, h, w], with torch's initial weights; their response norms begin at 0."""
    from timm.layers import LayerNorm
    from timm.models.convnext import ConvNeXtBlock

    norm = partial(LayerNorm, eps=EPS)
    blocks = [ConvNeXtBlock(dim, use_grn=True, ls_init_value=None, norm_layer=norm) for _ in range(depth)]
    mark_blocks(blocks)
    return nn.Sequential(*blocks)


class ResNetConfig(Config):
    """A ResNet; the defaults are ResNet-50."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    dims: tuple[int, ...] = (64, 128, 256, 512)
    """Width of each stage's 3x3 convolutions; a bottleneck puts out four times as many channels."""
    depths: tuple[Depth, ...] = (3, 4, 6, 3)
    stem_pool: bool = True
    """Max pooling in the stem, for a first stage at stride 4; without it, as is usual for small images, at 2."""
    drop_path: float = Field(0.0, ge=0, lt=1)


class ResNet(ConvNet):
    """timm's ResNet (torchvision's v1.5) without its head; it has no final norm.

    Its stem overlaps: a visible cell sees 7 px and more around it, hidden ones as well. Methods that put mask tokens
    on `embed` therefore blank the hidden pixels first.
    """

    version: ClassVar[str] = "1"
    Config = ResNetConfig
    config: ResNetConfig

    def __init__(self, config: ResNetConfig, *, image_size: int, in_channels: int) -> None:
        from timm.models.resnet import BasicBlock, Bottleneck
        from timm.models.resnet import ResNet as TimmResNet

        super().__init__(config, image_size=image_size, in_channels=in_channels)
        block = BasicBlock if config.block == "basic" else Bottleneck
        self.body = TimmResNet(
            block,
            config.depths,
            num_classes=0,
            in_chans=in_channels,
            global_pool="",
            channels=config.dims,
            drop_path_rate=config.drop_path,
        )
        if not config.stem_pool:
            self.body.maxpool = nn.Identity()
        mark_blocks(block for stage in range(len(config.dims)) for block in self._stage(stage))

    def set_sizes(self) -> None:
        config = self.config
        _check_stages(config.dims, config.depths)
        if sum(config.depths) < 2:
            raise InputError("encoder.depths has one block; a ResNet needs two or more")
        expansion = 1 if config.block == "basic" else 4  # output channels per channel of the 3x3 convolution
        dims = tuple(dim * expansion for dim in config.dims)
        self._shape(4 if config.stem_pool else 2, 64, dims, config.depths)

    def layer_of(self, parameter: str) -> int:
        parts = parameter.removeprefix("body.").split(".")
        if parts[0].startswith("layer"):
            return self._block_layer(int(parts[0].removeprefix("layer")) - 1, int(parts[1]))
        return 0

    def _stem(self, images: Tensor) -> Tensor:
        body = self.body
        return body.maxpool(body.act1(body.bn1(body.conv1(images))))

    def _enter(self, stage: int, x: Tensor) -> Tensor:
        return x

    def _stage(self, stage: int) -> nn.Sequential:
        return getattr(self.body, f"layer{stage + 1}")

    def _norm(self, x: Tensor) -> Tensor:
        return x

    def _level(self, x: Tensor) -> Tensor:
        return x


def _check_stages(dims: Sequence[int], depths: Sequence[int]) -> None:
    if not dims or len(dims) != len(depths) or min(*dims, *depths) < 1:
        raise InputError(
            f"encoder.dims {list(dims)} and encoder.depths {list(depths)} must have one number of 1 or more per stage"
        )
