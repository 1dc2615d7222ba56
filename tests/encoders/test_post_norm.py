"""A ViT with its norms after the residual sums, and the outputs of its MLPs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.checkpoints import encoder_of
from mimbench.convert import to_timm
from mimbench.errors import InputError
from mimbench.optim.layers import vit_layer

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}


def make(post_norm=True, **options):
    encoder = encoder_of("vit", SMALL | {"position": "sincos", "post_norm": post_norm} | options, 16)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return encoder


@pytest.mark.parametrize("position", ["sincos", "learned"])
@pytest.mark.parametrize("layer_scale", [None, 0.5])
def test_blocks_norm_each_sum_and_the_input(position, layer_scale):
    encoder = make(position=position, layer_scale=layer_scale)
    body, images = encoder.body, torch.randn(2, 3, 16, 16)
    tokens = encoder.embed(images)
    class_token = (body.cls_token + body.pos_embed[:, :1]).expand(2, -1, -1)
    x = torch.cat((class_token, tokens.flatten(1, 2) + body.pos_embed[:, 1:]), 1)
    x = body.norm_pre(x)
    layers, outputs = [], []
    for block in body.blocks:
        query, key, value = block.attn.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        attended = ((query @ key.mT / 8**0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)
        y = block.norm1(x + block.ls1(block.attn.proj(attended)))
        hidden = block.mlp.fc2(F.gelu(block.mlp.fc1(y)))
        x = block.norm2(y + block.ls2(hidden))
        layers.append(x)
        outputs.append(hidden)
    for got, expected in zip(encoder.forward_layers(tokens), layers, strict=True):
        torch.testing.assert_close(got.sequence, expected)
    for got, expected in zip(encoder.mlp_outputs(tokens), outputs, strict=True):
        torch.testing.assert_close(got.sequence, expected)
    torch.testing.assert_close(encoder.features(images).sequence, layers[-1])  # there is no final norm


def test_outputs_of_mlps_are_what_pre_norm_blocks_add():
    encoder = make(False)
    tokens = encoder.embed(torch.randn(2, 3, 16, 16))
    outputs = encoder.mlp_outputs(tokens)
    before, after = encoder.forward_layers(tokens, final_norm=False)[1:]
    block = encoder.body.blocks[2]
    middle = before.sequence + block.attn(block.norm1(before.sequence))
    torch.testing.assert_close(outputs[2].sequence, after.sequence - middle)
    assert not any(block.mlp._forward_hooks for block in encoder.body.blocks)


def test_dropped_patches_and_gradients():
    encoder = make()
    tokens, keep = encoder.embed(torch.randn(1, 3, 16, 16)), torch.tensor([[3, 0, 9]])
    before = encoder.forward_tokens(tokens, keep).sequence
    assert torch.equal(
        before, encoder.forward_tokens(tokens + 9 * (torch.arange(16) == 5).view(1, 4, 4, 1), keep).sequence
    )
    encoder.forward_tokens(tokens, keep).sequence.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert vit_layer("norm_pre.weight", 3) == 0
    assert {encoder.layer_of(name) for name, _ in encoder.named_parameters()} == {0, 1, 2, 3}


def test_mask_tokens_that_join_late_pass_the_input_norm():
    encoder = make()
    images, token, mask = torch.randn(2, 3, 16, 16), torch.randn(1, 1, 1, 16), torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0, :3] = mask[1, 2, 1:] = True
    keep = (~mask).flatten(1).nonzero()[:, 1].view(2, 13)
    late = encoder.encode_late(encoder.embed(images), keep, token, encoder.num_layers)
    torch.testing.assert_close(late, encoder.encode_masked(images, mask, token))


def test_what_post_norm_cannot_do_is_refused():
    for position in ("relative", "rope", "learned-and-rope", "learned-and-relative", "sincos-rows-first"):
        with pytest.raises(InputError, match=rf'post_norm is not for encoder.position "{position}"'):
            make(position=position)
    encoder = make()
    assert not {"windows", "relative-positions"} & encoder.can
    with pytest.raises(InputError, match=r"windows are not for encoder.post_norm; set window to 0"):
        encoder.use_windows(2, ())
    with pytest.raises(InputError, match=r"timm's ViT has no such blocks"):
        to_timm(encoder.state_dict(), {"post_norm": True, "position": "sincos"})
