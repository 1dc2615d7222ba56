"""Builds a detector around a pretrained encoder, and trains it for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import nn

from mimbench.api import (
    Encoder,
    InputConfig,
    StepOutput,
    encoder_layers,
    mm_step_output,
    quiet_mmengine,
    scale_to_bytes,
)
from mimbench_tasks.detection import backbone  # registers the parts that the configs below name
from mimbench_tasks.detection.config import DetectionConfig, undecayed_names
from mimbench_tasks.detection.detectors import DETECTORS
from mimbench_tasks.detection.heads import Heads


def build_detector(
    config: DetectionConfig, encoder: Encoder, images: InputConfig, *, classes: int, seed: int
) -> BaseDetector:
    """An mmdet detector around `encoder`, whose weights stay as they are; the rest is drawn from `seed`.

    Where `config` changes the drop path, it holds a copy of `encoder`, else `encoder` itself.

    Raises:
        InputError: the encoder does not go with these options.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = MODELS.build(ConfigDict(model_config(config, encoder, images, classes=classes)))
        if not next(encoder.parameters()).is_meta:  # there, no weight has a value
            with quiet_mmengine():
                detector.init_weights()
    return detector


def model_config(
    config: DetectionConfig, encoder: Encoder, images: InputConfig, *, classes: int, live: bool = True
) -> dict[str, Any]:
    """The whole model as mmdet's MODELS.build takes it; with `live` around this encoder, else around its like."""
    heads = Heads(config, classes, config.levels(encoder))
    return {
        # The scope holds for all that is built within; without it, names would mean what the last Runner left behind.
        "_scope_": "mmdet",
        "data_preprocessor": _preprocessor(config, encoder, images),
        "backbone": {
            "type": backbone.EncoderBackbone.__name__,
            "encoder": encoder if live else backbone.describe(encoder),
            "drop_path": config.drop_path,
            "window": config.window,
            "global_blocks": config.global_blocks,
            "relative_positions": config.positions_side,
            "train_positions": config.train_positions,
            "grad_checkpointing": config.train.grad_checkpointing,
            "norms": config.map_norms,
        },
        "neck": _neck(config, encoder),
        **DETECTORS[config.detector](heads),
    }


def _neck(config: DetectionConfig, encoder: Encoder) -> dict[str, Any]:
    """A simple feature pyramid for an encoder with one map, an FPN for one with several."""
    strides = encoder.pyramid_strides
    if len(strides) == 1:
        return {
            "type": backbone.SimpleFeaturePyramid.__name__,
            "in_channels": encoder.pyramid_dims[0],
            "in_stride": strides[0],
            "out_channels": config.channels,
            "strides": config.pyramid(strides),
            "extra_levels": config.extra_levels,
        }
    return {
        "type": "FPN",
        "in_channels": list(encoder.pyramid_dims),
        "out_channels": config.channels,
        "num_outs": len(config.levels(encoder)),
    }


def _preprocessor(config: DetectionConfig, encoder: Encoder, images: InputConfig) -> dict[str, Any]:
    """Pixels normalised as in pretraining, then padded with zeros."""
    channels = encoder.in_channels
    return {
        "type": backbone.ScenePreprocessor.__name__,
        "mean": scale_to_bytes(images.mean, channels, "mean"),
        "std": scale_to_bytes(images.std, channels, "std"),
        "pad_size_divisor": config.padding(encoder),
        "pad_mask": True,
    }


def layer_rules(model: nn.Module, encoder: Encoder, undecayed: Sequence[str]) -> dict[str, Any]:
    """What `build_optimizer` asks for besides the model: depths by parameter name, and which are not decayed.

    Raises:
        InputError: as `undecayed_names`.
    """
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    undecayed_parameters = undecayed_names(encoder, undecayed)
    return {
        "layer_of": encoder_layers(model, encoder),
        "num_layers": encoder.num_layers,
        "no_decay": {f"{prefix}.{name}" for name in encoder.no_weight_decay() | undecayed_parameters},
    }


class DetectorTraining(nn.Module):
    """A detector as the engine trains it; parameters are the encoder's, by depth, and the rest."""

    def __init__(self, detector: BaseDetector, undecayed: Sequence[str] = ()) -> None:
        super().__init__()
        self.detector = detector
        rules = layer_rules(self, self.encoder, undecayed)
        self.layer_of = rules["layer_of"]
        """Depth by parameter name, for layer decay; neck and heads come after the encoder's last layer."""
        self.num_layers = rules["num_layers"]
        self._no_decay = rules["no_decay"]

    @property
    def encoder(self) -> Encoder:
        return self.detector.backbone.encoder

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        """batch: what Scenes.loader yields. mmdet samples from torch's global generator, which the engine seeds."""
        data = self.detector.data_preprocessor(batch, True)
        losses = self.detector.loss(data["inputs"], data["data_samples"])
        return mm_step_output(self.detector, losses)

    @torch.inference_mode()
    def predict(self, batch: Any) -> Sequence[DetDataSample]:
        """Detections in the coordinates of the original images, best first."""
        data = self.detector.data_preprocessor(batch, False)
        return self.detector.predict(data["inputs"], data["data_samples"], rescale=True)

    def no_weight_decay(self) -> set[str]:
        return self._no_decay
