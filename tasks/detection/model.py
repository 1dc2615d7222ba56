"""Builds a detector around a pretrained encoder, and trains it for the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import lcm
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MMLogger
from torch import nn

from mimbench.contract import Encoder, InputConfig, InputError, StepOutput
from mimbench.optim import encoder_layers
from mimbench_tasks.detection import backbone  # registers the parts that the configs below name
from mimbench_tasks.detection.detectors import HeadOptions, detector_config


def build_detector(
    name: str, options: HeadOptions, encoder: Encoder, images: InputConfig, *, seed: int
) -> BaseDetector:
    """An mmdet detector around `encoder`, whose weights stay as they are; the rest is drawn from `seed`."""
    config = detector_config(
        name,
        options,
        backbone={"type": backbone.EncoderBackbone.__name__, "encoder": encoder},
        neck=neck_config(encoder, options),
        preprocessor=preprocessor_config(encoder, options, images),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = MODELS.build(config)
        with _quiet():
            detector.init_weights()
    return detector


def neck_config(encoder: Encoder, options: HeadOptions) -> dict[str, Any]:
    """A simple feature pyramid for an encoder with one map, an FPN for one with several.

    Raises:
        InputError: the encoder's maps cannot be brought to these strides.
    """
    own, strides = encoder.pyramid_strides, options.strides
    if len(own) == 1:
        if any(max(own[0], stride) % min(own[0], stride) for stride in strides):
            raise InputError(f"strides {strides} px are neither multiples nor fractions of the encoder's, {own[0]} px")
        return {
            "type": backbone.SimpleFeaturePyramid.__name__,
            "in_channels": encoder.pyramid_dims[0],
            "in_stride": own[0],
            "out_channels": options.channels,
            "strides": strides,
        }
    extra = tuple(own[-1] * 2**step for step in range(1, len(strides) - len(own) + 1))
    if strides != own + extra:
        raise InputError(f"strides {strides} px do not begin with the encoder's own, {own} px, doubling after that")
    return {
        "type": "FPN",
        "in_channels": list(encoder.pyramid_dims),
        "out_channels": options.channels,
        "num_outs": len(strides),
    }


def preprocessor_config(encoder: Encoder, options: HeadOptions, images: InputConfig) -> dict[str, Any]:
    """Pixels normalised as in pretraining, then padded with zeros to what every stride divides."""
    channels = encoder.in_channels
    return {
        "type": backbone.ScenePreprocessor.__name__,
        "mean": [255 * value for value in _per_channel(images.mean, channels)],
        "std": [255 * value for value in _per_channel(images.std, channels)],
        "pad_size_divisor": lcm(encoder.patch_size, *encoder.pyramid_strides, *options.strides),
        "pad_mask": True,
    }


class DetectorTraining(nn.Module):
    """A detector as the engine trains it; parameters are the encoder's, by depth, and the rest."""

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        self.detector = detector
        self.layer_of = encoder_layers(self, self.encoder)
        """Depth by parameter name, for layer decay; neck and heads come after the encoder's last layer."""

    @property
    def encoder(self) -> Encoder:
        return self.detector.backbone.encoder

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """batch: what Scenes.loader yields. mmdet samples from torch's global generator, which the engine seeds."""
        data = self.detector.data_preprocessor(batch, True)
        losses = self.detector.loss(data["inputs"], data["data_samples"])
        total, parts = self.detector.parse_losses(losses)
        # Named without "loss": whatever mmengine finds under that name, it adds to what is optimised.
        logs = {key.replace("loss_", ""): value.detach() for key, value in parts.items() if key != "loss"}
        return StepOutput(total, logs)

    @torch.inference_mode()
    def predict(self, batch: Any) -> Sequence[DetDataSample]:
        """Detections in the coordinates of the original images, best first."""
        data = self.detector.data_preprocessor(batch, False)
        return self.detector.predict(data["inputs"], data["data_samples"], rescale=True)

    @property
    def num_layers(self) -> int:
        return self.encoder.num_layers

    def no_weight_decay(self) -> set[str]:
        return {f"detector.backbone.encoder.{name}" for name in self.encoder.no_weight_decay()}


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    if len(values) != 1:
        raise InputError(f"input.mean and input.std hold {len(values)} values for an encoder of {channels} channels")
    return values * channels


@contextmanager
def _quiet() -> Iterator[None]:
    """mmengine logs the origin of every parameter, on standard output."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
