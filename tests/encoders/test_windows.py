"""Windowed blocks: each window for itself, padding that nobody computes, drop path by image, relative positions."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract import InputError
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.encoders.windows import windowed_block


def vit(position: str = "sincos", **options) -> ViT:
    torch.manual_seed(0)
    config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2, position=position, **options)
    return ViT(config, image_size=32, in_channels=1)


@pytest.mark.parametrize("layer_scale", [None, 0.5])
@pytest.mark.parametrize("position", ["sincos", "relative"])
def test_a_window_of_the_whole_grid_is_the_block_itself(position, layer_scale):
    block = vit(position, layer_scale=layer_scale).body.blocks[1].eval()
    x = torch.randn(2, 5, 6, 16)
    torch.testing.assert_close(windowed_block(block, x, None, (5, 6)), block(x.flatten(1, 2)).unflatten(1, (5, 6)))


def test_windows_do_not_see_each_other_and_padding_is_zeros_after_the_norm():
    block = vit().body.blocks[0].eval()
    torch.nn.init.ones_(block.norm1.bias)
    x = torch.randn(1, 4, 5, 16)
    whole = windowed_block(block, x, None, (4, 4))
    torch.testing.assert_close(whole[:, :, :4], windowed_block(block, x[:, :, :4].contiguous(), None, (4, 4)))
    padded = torch.zeros(1, 4, 4, 16)
    padded[:, :, :1] = block.norm1(x[:, :, 4:])
    attended = x[:, :, 4:] + block.attn(padded.flatten(1, 2)).unflatten(1, (4, 4))[:, :, :1]
    torch.testing.assert_close(whole[:, :, 4:], attended + block.mlp(block.norm2(attended)))


def test_a_dropped_path_drops_a_whole_images():
    block = vit(drop_path=0.6).body.blocks[1].train()
    x = torch.randn(64, 4, 4, 16)
    changed = (windowed_block(block, x, None, (2, 2)) - x).abs().amax(3) > 0
    by_image = changed.flatten(1)
    assert all(image.all() or not image.any() for image in by_image)
    assert 0 < by_image.any(1).sum() < 64


def test_relative_positions_start_at_zero_and_are_learned():
    plain, positioned = vit(), vit()
    images = torch.randn(2, 1, 40, 36)
    for encoder in (plain, positioned):
        encoder.use_windows(3, (1,))
    positioned.add_relative_positions(40)
    expected = plain.pyramid(images)[0]
    torch.testing.assert_close(positioned.pyramid(images)[0], expected)
    tables = {name: value for name, value in positioned.named_parameters() if ".rel_pos" in name}
    assert [tuple(value.shape) for value in tables.values()] == [(5, 8), (5, 8), (19, 8), (19, 8)]
    assert {positioned.layer_of(name) for name in tables} == {1, 2}
    positioned.pyramid(images)[0].square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in tables.values())
    with torch.no_grad():
        tables["body.blocks.0.attn.rel_pos_h"].normal_()
    assert not torch.allclose(positioned.pyramid(images)[0], expected)


def test_checkpointing_changes_no_gradient():
    gradients = []
    for enable in (False, True):
        encoder = vit().train()
        encoder.use_windows(3, (1,))
        encoder.add_relative_positions(32)
        encoder.set_grad_checkpointing(enable)
        encoder.pyramid(torch.ones(1, 1, 32, 32))[0].square().sum().backward()
        gradients.append([value.grad for value in encoder.parameters() if value.requires_grad])
    torch.testing.assert_close(*gradients)


def test_an_encoder_with_relative_positions_keeps_its_own():
    encoder = vit("relative")
    encoder.use_windows(3, ())
    before = set(encoder.state_dict())
    encoder.add_relative_positions(32)
    assert set(encoder.state_dict()) == before


def test_without_windows_there_are_none():
    with pytest.raises(InputError, match="relative_positions are for windows"):
        vit().add_relative_positions(32)


def test_the_class_token_idles_in_windows_and_is_not_trained():
    encoder = vit()
    encoder.use_windows(3, ())
    assert not encoder.body.cls_token.requires_grad
    encoder.use_windows(0, ())
    assert encoder.body.cls_token.requires_grad
