"""Pretrained weights must reach the first training step untouched."""

from __future__ import annotations

import hashlib

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from helpers.tiny_detection import PlainFit, TinyEncoder, context, small_config
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench_tasks.detection.backbone import EncoderBackbone
from mimbench_tasks.detection.detectors import DETECTORS
from mimbench_tasks.detection.task import Detection


def digest(state: dict[str, torch.Tensor]) -> str:
    """Of names, shapes and bits."""
    sha = hashlib.sha256()
    for name, value in sorted(state.items()):
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(value.contiguous().numpy().tobytes())
    return sha.hexdigest()


def pretrained(encoder):
    """An encoder whose every tensor differs from any initialisation."""
    generator = torch.Generator().manual_seed(1)
    for value in encoder.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.01)
    return encoder


def digest_at_first_step(encoder, scenes, workdir, **options) -> str:
    """The encoder inside the detector as the trainer gets it."""
    fit = PlainFit()
    Detection(small_config(max_detections=5, **options)).run(encoder, scenes, context(workdir, fit))
    return digest(fit.before)


@pytest.mark.parametrize("detector", sorted(DETECTORS))
def test_every_detector_starts_from_the_weights_handed_in(detector, scenes, tmp_path):
    encoder = pretrained(TinyEncoder())
    expected = digest(encoder.state_dict())
    assert digest_at_first_step(encoder, scenes, tmp_path, detector=detector) == expected
    assert digest(encoder.state_dict()) != expected, "training did not move the encoder that was handed in"


@pytest.mark.parametrize("position", ["relative", "sincos"])
def test_so_does_a_timm_vit_with_windows(position, scenes, tmp_path):
    config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2, position=position)
    encoder = pretrained(ViT(config, image_size=28, in_channels=1))
    expected = digest(encoder.state_dict())
    assert digest_at_first_step(encoder, scenes, tmp_path, window=4, global_blocks=(1,)) == expected


def test_the_check_sees_weights_lost_the_usual_way(scenes, tmp_path, monkeypatch):
    """mmengine's own init_weights walks into the backbone and calls timm's initialiser."""
    monkeypatch.setattr(EncoderBackbone, "init_weights", BaseModule.init_weights)
    encoder = pretrained(TinyEncoder())
    expected = digest(encoder.state_dict())
    assert digest_at_first_step(encoder, scenes, tmp_path) != expected


def test_the_check_sees_a_copy_trained_in_its_place(scenes, tmp_path, monkeypatch):
    """A detector built around another encoder of the same shape."""
    original = EncoderBackbone.__init__
    monkeypatch.setattr(
        EncoderBackbone, "__init__", lambda self, encoder, **options: original(self, TinyEncoder(), **options)
    )
    encoder = pretrained(TinyEncoder())
    assert digest_at_first_step(encoder, scenes, tmp_path) != digest(encoder.state_dict())


def test_neck_and_heads_are_initialised_and_follow_the_seed(scenes, tmp_path):
    def heads(seed: int) -> dict[str, torch.Tensor]:
        fit = HeadFit()
        Detection(small_config()).run(TinyEncoder(), scenes, context(tmp_path, fit, seed=seed))
        return fit.heads

    first, same, other = heads(0), heads(0), heads(1)
    assert digest(first) == digest(same) != digest(other)
    bias = first["detector.bbox_head.conv_cls.bias"]
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))  # FCOSHead's own initial value


class HeadFit(PlainFit):
    heads: dict[str, torch.Tensor]

    def __call__(self, model: nn.Module, loader, config, **options):
        self.heads = {name: value.clone() for name, value in model.state_dict().items() if ".backbone." not in name}
        return super().__call__(model, loader, config, **options)
