"""Attention weights: a distribution per query, and the ones that the blocks use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mimbench.contract import NotSupported
from mimbench.encoders.convnet import ConvNeXt
from mimbench.encoders.swin import Swin
from mimbench.encoders.vit import ViT

POSITIONS = [
    "relative", "relative-per-block", "sincos", "sincos-rows-first-and-relative", "learned", "learned-and-relative",
    "rope", "learned-and-rope", "edge-rope",
]  # fmt: skip


def vit(position, **options):
    torch.manual_seed(0)
    config = ViT.Config(patch_size=4, embed_dim=16, depth=3, num_heads=2, position=position, **options)
    encoder = ViT(config, image_size=16, in_channels=3).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


class Attentions(TorchFunctionMode):
    """Notes values and outputs of each fused attention."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **kwargs or {})
        if func is F.scaled_dot_product_attention:
            self.calls.append((args[2], output))
        return output


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_weights_times_values_are_the_output_of_each_attention(position):
    encoder, images = vit(position), torch.randn(2, 3, 16, 16)
    before = encoder.features(images).dense
    with Attentions() as noted:
        encoder.features(images)
    weights = list(encoder.attention(images))
    assert len(weights) == len(noted.calls) == 3
    for layer, (values, output) in zip(weights, noted.calls, strict=True):
        assert layer.shape == (2, 2, 17, 17)
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 2, 17))
        torch.testing.assert_close(layer @ values, output, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder.features(images).dense, before)


@torch.no_grad()
def test_equal_keys_get_uniform_attention():
    encoder = vit("sincos")
    for block in encoder.body.blocks:
        block.attn.qkv.weight.zero_()
    for layer in encoder.attention(torch.randn(1, 3, 16, 16)):
        torch.testing.assert_close(layer, torch.full((1, 2, 17, 17), 1 / 17))


@torch.no_grad()
def test_prefix_tokens_come_first_and_layers_one_at_a_time():
    encoder = vit("learned", registers=2, class_token=False)
    layers = encoder.attention(torch.randn(1, 3, 16, 16))
    assert next(layers).shape == (1, 2, 18, 18)
    ran = []
    encoder.body.blocks[2].register_forward_hook(lambda *_: ran.append(2))
    next(layers)
    assert ran == []
    layers.close()


def test_encoders_without_global_attention_say_so():
    swin = Swin(
        Swin.Config(embed_dim=8, depths=(1,), num_heads=(1,), patch_size=2, window=4), image_size=16, in_channels=3
    )
    convnext = ConvNeXt(ConvNeXt.Config(patch_size=4, dims=(8,), depths=(1,)), image_size=16, in_channels=3)
    for encoder in (swin, convnext):
        assert "attention" not in encoder.can
        with pytest.raises(NotSupported, match="does not return attention weights"):
            encoder.attention(torch.zeros(1, 3, 16, 16))
