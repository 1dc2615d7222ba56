"""Exported weights in timm's own models: the same features, bit for bit."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.checkpoints import encoder_of, noisy
from mimbench.convert import to_timm
from mimbench.errors import InputError

VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
TIMM_VIT = {"img_size": 32, "num_classes": 0, **VIT}

CASES = {
    "vit relative": (
        "vit",
        VIT | {"position": "relative", "layer_scale": 0.1},
        partial(
            Beit,
            **TIMM_VIT,
            init_values=0.1,
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
            global_pool="token",
        ),
    ),
    "vit relative in each block": (
        "vit",
        VIT | {"position": "relative-per-block"},
        partial(Beit, **TIMM_VIT, use_abs_pos_emb=False, use_rel_pos_bias=True, global_pool="token"),
    ),
    "vit learned": ("vit", VIT | {"position": "learned"}, partial(VisionTransformer, **TIMM_VIT)),
    "vit sin-cos": ("vit", VIT | {"position": "sincos"}, partial(VisionTransformer, **TIMM_VIT)),
    "vit sin-cos, rows first": (
        "vit",
        VIT | {"position": "sincos-rows-first", "layer_scale": 0.1},
        partial(VisionTransformer, **TIMM_VIT, init_values=0.1),
    ),
    "swin": (
        "swin",
        {"patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window": 4},
        partial(
            SwinTransformer,
            img_size=32,
            patch_size=2,
            embed_dim=8,
            depths=(2, 2),
            num_heads=(1, 2),
            window_size=4,
            num_classes=0,
        ),
    ),
    "swin with other windows and epsilon": (
        "swin",
        {"patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window": [8, 4], "norm_eps": 1e-3},
        partial(
            SwinTransformer,
            img_size=32,
            patch_size=2,
            embed_dim=8,
            depths=(1, 2),
            num_heads=(1, 2),
            window_size=((8, 8), (4, 4)),
            num_classes=0,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-3),
        ),
    ),
    "convnext": (
        "convnext",
        {"patch_size": 4, "dims": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
        partial(ConvNeXt, dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), num_classes=0, head_norm_first=True),
    ),
    "resnet": (
        "resnet",
        {"dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
        partial(ResNet, Bottleneck, (1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_features_are_the_same_bit_for_bit(case, tmp_path):
    kind, options, build = CASES[case]
    encoder = noisy(encoder_of(kind, options, 32))
    save_file(to_timm(encoder.state_dict()), tmp_path / "weights.safetensors")
    model = build().eval()
    model.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    # timm's Beit hands its bias to attention without a batch axis, which takes another kernel than with one.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        ours, theirs = encoder.features(images), model.forward_features(images)
        if kind == "vit":
            assert torch.equal(ours.prefix, theirs[:, :1])
            assert torch.equal(ours.dense.flatten(2).transpose(1, 2), theirs[:, 1:])
        elif kind == "swin":
            assert torch.equal(ours.dense.permute(0, 2, 3, 1), theirs)
        else:
            assert torch.equal(ours.dense, theirs)


def test_what_timm_does_not_have_is_not_exported():
    with pytest.raises(InputError, match=r"'extra\.weight', which no timm model has"):
        to_timm({"body.norm.weight": torch.ones(2), "extra.weight": torch.ones(2)})


def test_positions_that_timm_does_not_compute_cannot_be_exported():
    state = {"body.norm.weight": torch.ones(2)}
    assert to_timm(state, {"position": "learned", "registers": 0}) == {"norm.weight": state["body.norm.weight"]}
    with pytest.raises(InputError, match=r'encoder\.position "learned-and-rope": timm\'s ViT has no such positions'):
        to_timm(state, {"position": "learned-and-rope"})
    with pytest.raises(InputError, match=r"encoder\.registers: timm's ViT has no registers beside a class token"):
        to_timm(state, {"position": "learned", "registers": 2})
    with pytest.raises(InputError, match=r'encoder\.norm "rms": timm\'s ViT has weights in its final norm'):
        to_timm(state, {"position": "sincos", "norm": "rms"})


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"position": "sincos-and-relative"}, 'encoder.position "sincos-and-relative"'),
        ({"shift": False}, "encoder.shift = false"),
    ],
)
def test_a_swin_that_timm_does_not_have_is_refused(options, option):
    encoder = encoder_of("swin", {"embed_dim": 8, "depths": [2], "num_heads": [1], "window": 4} | options, 32)
    with pytest.raises(InputError, match=f"{option}: timm's Swin has no such option"):
        to_timm(encoder.state_dict(), options)
