"""What stands between a mimbench encoder and an mmdet head: backbone, simple feature pyramid, preprocessor."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from mimbench.api import Encoder, FollowsModelDevice, InputError, PretrainedModule, adapt_encoder

MODELS.register_module(name="ChannelLayerNorm", module=LayerNorm2d)


@MODELS.register_module()
class EncoderBackbone(PretrainedModule):
    """A mimbench encoder as an mmdet backbone; its weights are the ones it came with."""

    def __init__(
        self,
        encoder: Encoder | Mapping[str, Any],
        *,
        weights: str | None = None,
        drop_path: float | None = None,
        window: int = 0,
        global_blocks: Sequence[int] = (),
        relative_positions: int | None = None,
        train_positions: bool = False,
        grad_checkpointing: bool = False,
        norms: bool = False,
    ) -> None:
        """encoder: itself, or what `describe` says of it, then with the weights in the file `weights`, if any.

        norms: put a learned LayerNorm on each of its maps. relative_positions: side of the scenes, px, that they are
        learned for; None: none are. The others are as in DetectionConfig.

        Raises:
            InputError: the encoder does not go with these options, or `weights` with the encoder.
        """
        super().__init__()
        base = encoder if isinstance(encoder, Encoder) else _built(encoder)
        if weights:
            _load(base, weights)
        self.encoder = adapt_encoder(
            base,
            drop_path=drop_path,
            window=window,
            global_blocks=global_blocks,
            relative_positions=relative_positions,
            train_positions=train_positions,
            grad_checkpointing=grad_checkpointing,
        )
        dims = self.encoder.pyramid_dims
        self.norms = nn.ModuleList(LayerNorm2d(dim, eps=1e-5) for dim in dims) if norms else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W], normalised -> the encoder's maps, finest first."""
        maps = self.encoder.pyramid(images)
        if self.norms is not None:
            maps = [norm(each) for norm, each in zip(self.norms, maps, strict=True)]
        return tuple(maps)


def describe(encoder: Encoder) -> dict[str, Any]:
    """All that `EncoderBackbone` needs to build the like of `encoder`, as plain data."""
    cls = type(encoder)
    return {
        "target": f"{cls.__module__}:{cls.__qualname__}",
        "config": encoder.config.model_dump(mode="json"),
        "image_size": encoder.image_size,
        "in_channels": encoder.in_channels,
    }


def _built(described: Mapping[str, Any]) -> Encoder:
    cls: type[Encoder] = pkgutil.resolve_name(described["target"])
    config = cls.Config.model_validate(dict(described["config"]))
    return cls(config, image_size=described["image_size"], in_channels=described["in_channels"])


def _load(encoder: Encoder, weights: str) -> None:
    try:
        encoder.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{weights} does not hold this encoder's weights, as mimbench writes them: {reason}"
        ) from error


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps at several strides from the one map of a plain ViT (ViTDet, arXiv:2203.16527, section 3).

    Finer levels by 2x2 transposed convolutions, coarser ones by max pooling; then 1x1 and 3x3 convolutions,
    each with a LayerNorm over channels.
    """

    def __init__(
        self, in_channels: int, in_stride: int, out_channels: int, strides: Sequence[int], extra_levels: int = 0
    ) -> None:
        """extra_levels: coarser ones after `strides`, each with every second cell of the one before."""
        super().__init__()
        self.extra_levels = extra_levels
        self.levels = nn.ModuleList(
            nn.Sequential(*_rescale(in_channels, in_stride, stride, out_channels), *_smooth(out_channels))
            for stride in strides
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """([B, D, H/s, W/s],) -> [B, out_channels, H/t, W/t] for each stride t."""
        outputs = [level(maps[-1]) for level in self.levels]
        for _ in range(self.extra_levels):
            outputs.append(outputs[-1][..., ::2, ::2])
        return tuple(outputs)


def _rescale(channels: int, in_stride: int, stride: int, out_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    if stride > in_stride:
        layers.append(nn.MaxPool2d(stride // in_stride))
    while in_stride > stride:
        if layers:
            layers += [LayerNorm2d(channels, eps=1e-6), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        in_stride, channels = in_stride // 2, channels // 2
    return [*layers, nn.Conv2d(channels, out_channels, 1, bias=False), LayerNorm2d(out_channels, eps=1e-6)]


def _smooth(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels, eps=1e-6)]


@MODELS.register_module()
class ScenePreprocessor(FollowsModelDevice, DetDataPreprocessor):
    """mmdet's preprocessor, on the device where the model is."""
