"""What stands between a mimbench encoder and an mmdet head: backbone, simple feature pyramid, preprocessor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from mimbench.contract import Encoder


@MODELS.register_module()
class EncoderBackbone(BaseModule):
    """A mimbench encoder as an mmdet backbone; its weights are the ones it came with."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W], normalised -> the encoder's maps, finest first."""
        return tuple(self.encoder.pyramid(images))

    def init_weights(self) -> None:
        """Keep the pretrained weights: mmengine's own version would reach timm's initialiser and overwrite them."""
        self.is_init = True


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps at several strides from the one map of a plain ViT (ViTDet, arXiv:2203.16527, section 3).

    Finer levels by 2x2 transposed convolutions, coarser ones by max pooling; then 1x1 and 3x3 convolutions,
    each with a LayerNorm over channels.
    """

    def __init__(self, in_channels: int, in_stride: int, out_channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(*_rescale(in_channels, in_stride, stride, out_channels), *_smooth(out_channels))
            for stride in strides
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """([B, D, H/s, W/s],) -> [B, out_channels, H/t, W/t] for each stride t."""
        return tuple(level(maps[-1]) for level in self.levels)


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
class ScenePreprocessor(DetDataPreprocessor):
    """mmdet's preprocessor, on the device where the model is.

    mmdet's own learns its device only from its direct owner's `.to`; moved as part of any other module, it would go
    on sending batches to the CPU.
    """

    @property
    def device(self) -> torch.device:
        return self.mean.device
