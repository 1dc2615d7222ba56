"""All forms of attention give what the formula gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mimbench.compute.attention import FORMS, attend, dense_bias, restore_attention_forms, set_attention_form
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.vit import ViT, ViTConfig

GOLDEN = {"rtol": 1e-5, "atol": 1e-5}


def formula(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5 + bias, -1)
    return weights @ value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("per_image", [False, True])
def test_a_form_follows_the_formula(form, per_image):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 16)[:, :2]
    table = torch.randn(9, 4)
    index = torch.randint(0, 9, (2, 5, 5) if per_image else (5, 5))
    bias = dense_bias(table, index)
    assert bias.shape == (2 if per_image else 1, 4, 5, 5)
    assert bias[-1, 3, 1, 2] == table[index.view(-1, 5, 5)[-1, 1, 2], 3]
    expected = formula(query, key, value, bias)
    torch.testing.assert_close(attend(query, key, value, bias, form=form), expected, **GOLDEN)
    torch.testing.assert_close(attend(query, key, value, (table, index), form=form), expected, **GOLDEN)


@pytest.mark.parametrize("form", ["plain", "aligned"])
def test_the_gradients_of_a_form(form):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, 5, 16, requires_grad=True) for _ in range(3)]
    bias = torch.randn(1, 4, 5, 5, requires_grad=True)
    weight = torch.randn(2, 4, 5, 16)
    expected = torch.autograd.grad((formula(*tensors, bias) * weight).sum(), [*tensors, bias])
    gradients = torch.autograd.grad((attend(*tensors, bias, form=form) * weight).sum(), [*tensors, bias])
    torch.testing.assert_close(gradients, expected, **GOLDEN)


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
def test_the_gradients_of_a_form_on_a_gpu(form):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, 50, 16, device="cuda", requires_grad=True) for _ in range(3)]
    table = torch.randn(30, 4, device="cuda", requires_grad=True)
    index = torch.randint(0, 30, (50, 50), device="cuda")
    weight = torch.randn(2, 4, 50, 16, device="cuda")
    expected = torch.autograd.grad((formula(*tensors, dense_bias(table, index)) * weight).sum(), [*tensors, table])
    run = torch.compile(lambda *inputs: attend(*inputs, (table, index), form=form), dynamic=False)
    gradients = torch.autograd.grad((run(*tensors) * weight).sum(), [*tensors, table])
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-3)


def test_dropout_has_the_expected_share():
    torch.manual_seed(0)
    zeros, ones = torch.zeros(64, 2, 16, 8), torch.ones(64, 2, 16, 8)
    for form in FORMS:
        mean = attend(zeros, zeros, ones, torch.zeros(1, 2, 16, 16), form=form, dropout=0.5).mean()
        assert 0.95 < mean < 1.05


def encoders() -> list:
    torch.manual_seed(0)
    config = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    swin = SwinConfig(patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window=4)
    return [
        ViT(ViTConfig(**config), image_size=16, in_channels=3),
        ViT(ViTConfig(**config, position="relative-per-block"), image_size=16, in_channels=3),
        Swin(swin, image_size=32, in_channels=3),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_gives_the_same_in_each_form(form):
    for encoder in encoders():
        for name, parameter in encoder.named_parameters():
            if "relative" in name:
                torch.nn.init.normal_(parameter)
        images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
        tokens = encoder.embed(images).detach()
        keep = torch.stack([torch.randperm(16)[:6] for _ in range(2)]) if "visible-only" in encoder.can else None
        with torch.no_grad():
            expected = encoder.encode(tokens)
            visible = None if keep is None else encoder.forward_tokens(tokens, keep).dense
            before = set_attention_form(encoder, form)
            assert before
            torch.testing.assert_close(encoder.encode(tokens), expected, **GOLDEN)
            if keep is not None:
                torch.testing.assert_close(encoder.forward_tokens(tokens, keep).dense, visible, **GOLDEN)
        restore_attention_forms(before)
        assert {module.attention_form for module, _ in before} == {form for _, form in before}


def test_timms_own_operations_are_the_default():
    """Recorded numbers stay as they are: to the last bit what timm's modules give, gradients included."""
    from timm.models.beit import Attention
    from timm.models.swin_transformer import WindowAttention

    for encoder in encoders():
        images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
        results = []
        for timms in (False, True):
            if timms:
                for module in encoder.modules():
                    for cls in (Attention, WindowAttention):
                        if isinstance(module, cls):
                            module.__class__ = cls
            encoder.zero_grad()
            output = encoder.encode(encoder.embed(images))
            output.square().sum().backward()
            results.append([output.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
            if timms:
                assert not any(hasattr(type(module), "attention_form") for module in encoder.modules())
        assert len(results[0]) == len(results[1])
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
