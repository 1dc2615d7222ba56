"""Builds a segmentor around a pretrained encoder, and trains it for the engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import lcm
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.registry import MODELS
from torch import Tensor, nn

from mimbench.api import (
    IGNORED,
    Encoder,
    FollowsModelDevice,
    InputConfig,
    PretrainedModule,
    StepOutput,
    encoder_layers,
    mean_over_shares,
    mm_step_output,
    quiet_mmengine,
    scale_to_bytes,
    share_dropout,
)
from mimbench_tasks.segmentation.config import SegmentationConfig, pyramid_strides

BATCH_NORM = {"type": "BN", "requires_grad": True}


@MODELS.register_module()
class PixelBackbone(PretrainedModule):
    """A mimbench encoder as an mmseg backbone; its weights are the ones it came with."""

    def __init__(self, encoder: Encoder, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.indices = [encoder.layer_index(layer) for layer in layers]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W], normalised -> the encoder's maps, or those of its chosen layers; finest first."""
        if not self.indices:
            return tuple(self.encoder.pyramid(images))
        every = self.encoder.layers(images)
        return tuple(every[index].dense for index in self.indices)


@MODELS.register_module()
class StridePyramid(nn.Module):
    """Maps of one stride, one per level or one for all, brought to several strides.

    Finer levels by 2x2 transposed convolutions with BatchNorm and GELU between them, coarser ones by max pooling, as
    BEiT does for UPerNet (microsoft/unilm@768a3c87, beit/semantic_segmentation/backbone/beit.py); mmsegmentation's
    Feature2Pyramid is this for two sets of strides.
    """

    def __init__(self, channels: int, in_stride: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_rescale(channels, in_stride, stride) for stride in strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One [B, D, H/s, W/s], or one for each stride t -> [B, D, H/t, W/t] each."""
        if len(maps) == 1:
            maps = list(maps) * len(self.levels)
        return tuple(level(each) for level, each in zip(self.levels, maps, strict=True))


def _rescale(channels: int, in_stride: int, stride: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    if stride > in_stride:
        steps.append(nn.MaxPool2d(stride // in_stride))
    while in_stride > stride:
        if steps:
            steps += [nn.BatchNorm2d(channels), nn.GELU()]
        steps.append(nn.ConvTranspose2d(channels, channels, 2, 2))
        in_stride //= 2
    return nn.Sequential(*steps)


@MODELS.register_module()
class PixelPreprocessor(FollowsModelDevice, SegDataPreProcessor):
    """mmseg's preprocessor, on the device where the model is."""


def build_segmentor(
    config: SegmentationConfig, encoder: Encoder, classes: int, images: InputConfig, *, seed: int
) -> EncoderDecoder:
    """An mmseg model around `encoder`, whose weights stay as they are; the rest is drawn from `seed`.

    Raises:
        InputError: the encoder's maps cannot be brought to the strides of `config`.
    """
    # The scope holds for all that is built within; without it, names would mean what the last Runner left behind.
    described = ConfigDict({"_scope_": "mmseg", **segmentor_config(config, encoder, classes, images)})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), quiet_mmengine():
        warnings.simplefilter("ignore", UserWarning)  # tells of its own defaults, which are the official ones
        torch.manual_seed(seed)
        segmentor = MODELS.build(described)
        if not next(encoder.parameters()).is_meta:  # there, no weight has a value
            segmentor.init_weights()
    return segmentor


def segmentor_config(config: SegmentationConfig, encoder: Encoder, classes: int, images: InputConfig) -> dict[str, Any]:
    """The whole model as mmseg's MODELS.build takes it."""
    strides = pyramid_strides(config, encoder)
    several = len(encoder.pyramid_strides) > 1
    dims = list(encoder.pyramid_dims) if several else [encoder.pyramid_dims[0]] * len(strides)
    shared = {"num_classes": classes, "norm_cfg": BATCH_NORM, "dropout_ratio": config.dropout, "align_corners": False}
    described: dict[str, Any] = {
        "type": "EncoderDecoder",
        "data_preprocessor": _preprocessor(config, encoder, strides, images),
        "backbone": {"type": PixelBackbone.__name__, "encoder": encoder, "layers": config.layers},
        "decode_head": {
            **_head(config, strides),
            **shared,
            "in_channels": dims,
            "in_index": list(range(len(strides))),
            "channels": config.channels,
            "loss_decode": _loss(config, classes, 1.0),
        },
        "train_cfg": {},
        "test_cfg": _evaluation(config),
    }
    if not several:
        encoder_stride = encoder.pyramid_strides[0]
        described["neck"] = {
            "type": StridePyramid.__name__,
            "channels": dims[0],
            "in_stride": encoder_stride,
            "strides": strides,
        }
    if config.auxiliary:
        level = min(2, len(strides) - 1)
        described["auxiliary_head"] = {
            "type": "FCNHead",
            **shared,
            "in_channels": dims[level],
            "in_index": level,
            "channels": config.auxiliary_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": _loss(config, classes, config.auxiliary),
        }
    return described


def divisor(encoder: Encoder, strides: Sequence[int]) -> int:
    """What the sides of every image are padded to a multiple of, px."""
    return lcm(encoder.patch_size, *strides)


class SegmentorTraining(nn.Module):
    """A segmentor as the engine trains it; parameters are the encoder's, by depth, and the rest.

    The loss is the official one: cross-entropy, its sum divided by all pixels, ignored and padded ones included; with
    a weight of the background, a weighted mean over the pixels that count.
    """

    shares_batch = True

    def __init__(self, segmentor: EncoderDecoder, background_weight: float = 1.0) -> None:
        super().__init__()
        self.segmentor, self.background_weight = segmentor, background_weight
        share_dropout(segmentor)
        self.layer_of = encoder_layers(self, self.encoder)
        """Depth by parameter name, for layer decay; neck and heads come after the encoder's last layer."""

    @property
    def encoder(self) -> Encoder:
        return self.segmentor.backbone.encoder

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """batch: what LabelledImages yields. Dropout draws from torch's global generator, which the engine seeds."""
        data = self.segmentor.data_preprocessor(batch, True)
        losses = self.segmentor.loss(data["inputs"], data["data_samples"])
        output = mm_step_output(self.segmentor, losses)
        if self.background_weight == 1:
            return output
        # The weighted means over the pixels of each process become the one over the pixels of all.
        labels = torch.stack([sample.gt_sem_seg.data for sample in data["data_samples"]])
        weight = (labels == 0).sum() * self.background_weight + ((labels > 0) & (labels != IGNORED)).sum()
        return StepOutput(output.loss * (weight / mean_over_shares(weight)), output.logs)

    @torch.inference_mode()
    def predict(self, batch: Any) -> list[Tensor]:
        """int64 [H, W] for each image, in its original pixels."""
        data = self.segmentor.data_preprocessor(batch, False)
        samples = self.segmentor.predict(data["inputs"], data["data_samples"])
        return [sample.pred_sem_seg.data[0] for sample in samples]

    @property
    def num_layers(self) -> int:
        return self.encoder.num_layers

    def no_weight_decay(self) -> set[str]:
        return {f"segmentor.backbone.encoder.{name}" for name in self.encoder.no_weight_decay()}


def _head(config: SegmentationConfig, strides: tuple[int, ...]) -> dict[str, Any]:
    if config.head == "upernet":
        return {"type": "UPerHead", "pool_scales": (1, 2, 3, 6)}
    return {"type": "FPNHead", "feature_strides": strides}


def _loss(config: SegmentationConfig, classes: int, weight: float) -> dict[str, Any]:
    background = config.background_weight
    by_class = None if background == 1 else [background] + [1.0] * (classes - 1)
    return {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight, "class_weight": by_class}


def _preprocessor(
    config: SegmentationConfig, encoder: Encoder, strides: tuple[int, ...], images: InputConfig
) -> dict[str, Any]:
    """Pixels normalised as in pretraining, then padded with zeros, and labels with 255.

    Position tables of one size need windows of that size: with `config.position`, evaluation pads smaller images to a
    window, and larger ones not at all, as in mmsegmentation.
    """
    padded = divisor(encoder, strides)
    crop = None if config.crop_size is None else (config.crop_size, config.crop_size)
    return {
        "type": PixelPreprocessor.__name__,
        "mean": scale_to_bytes(images.mean, encoder.in_channels, "mean"),
        "std": scale_to_bytes(images.std, encoder.in_channels, "std"),
        "size": crop,
        "size_divisor": padded if crop is None else None,
        "test_cfg": {"size": crop} if config.position else {"size_divisor": padded},
    }


def _evaluation(config: SegmentationConfig) -> dict[str, Any]:
    if config.slide is None:
        return {"mode": "whole"}
    return {"mode": "slide", "crop_size": (config.crop_size,) * 2, "stride": (config.slide,) * 2}
