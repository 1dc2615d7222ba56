"""ConvNeXt and ResNet: timm's own numbers, other image sizes, depth of parameters, what they refuse."""

from __future__ import annotations

import pytest
import torch
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.convnext import ConvNeXtStage
from torch import nn

from mimbench.encoders.convnet import ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig, convnext_blocks
from mimbench.encoders.rebuilding import require_drop_path
from mimbench.errors import InputError

KINDS = ["convnext", "resnet"]


def make(kind: str, *, image_size: int = 32, **options):
    torch.manual_seed(0)
    if kind == "convnext":
        small = {"patch_size": 4, "dims": (8, 16), "depths": (1, 2), "layer_scale": 0.5}
        encoder = ConvNeXt(ConvNeXtConfig(**small | options), image_size=image_size, in_channels=1)
    else:
        small = {"block": "basic", "dims": (8, 16), "depths": (1, 2)}
        encoder = ResNet(ResNetConfig(**small | options), image_size=image_size, in_channels=1)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # the last of a residual branch starts at 0
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return encoder.eval()


@pytest.mark.parametrize(("grn", "scale"), [(False, 0.5), (True, None), (False, None)], ids=["v1", "v2", "neither"])
def test_a_whole_convnext_is_timms_own_model(grn, scale):
    ours = make("convnext", image_size=64, dims=(8, 16, 16, 24), depths=(1, 1, 2, 1), grn=grn, layer_scale=scale)
    for name, parameter in ours.named_parameters():
        if ".grn." in name:
            nn.init.normal_(parameter)
    theirs = TimmConvNeXt(
        in_chans=1, num_classes=0, dims=(8, 16, 16, 24), depths=(1, 1, 2, 1), ls_init_value=scale, use_grn=grn,
        head_norm_first=True,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.body.state_dict())
    images = torch.randn(2, 1, 64, 64)
    assert torch.allclose(ours.features(images).pooled, theirs(images), atol=1e-5)
    assert {tuple(p.shape) for p in ours.parameters()} == {tuple(p.shape) for p in theirs.parameters()}


def test_a_whole_resnet_is_timms_own_model():
    ours = make("resnet", image_size=64, block="bottleneck", dims=(8, 8, 16, 16), depths=(1, 1, 2, 1))
    images = torch.randn(2, 1, 64, 64)
    assert torch.equal(ours.features(images).dense, ours.body.forward_features(images))
    assert ours.out_dim == 64


def test_grn_leaves_the_fingerprint_of_a_convnext_without_it():
    assert "grn" not in ConvNeXtConfig().shaping()
    assert ConvNeXtConfig(grn=True).shaping()["grn"] is True
    assert ("response-norm" in make("convnext", grn=True).can, "response-norm" in make("convnext").can) == (True, False)


def test_blocks_of_a_decoder_are_those_of_timms_convnext_v2():
    torch.manual_seed(0)
    ours = convnext_blocks(8, 2)
    theirs = ConvNeXtStage(8, 8, stride=1, depth=2, ls_init_value=None, use_grn=True)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.blocks.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_features_at_every_depth(kind):
    encoder, images = make(kind), torch.randn(2, 1, 32, 32)
    assert encoder.embed(images).shape == (2, 8, 8, encoder.embed_dim)
    last = encoder.features(images)
    assert (last.pooled.shape, last.dense.shape, last.prefix.shape) == ((2, 16), (2, 16, 4, 4), (2, 0, 16))
    assert torch.equal(last.dense, encoder.encode(encoder.embed(images)))
    assert torch.allclose(last.pooled, last.dense.mean((2, 3)), atol=1e-6)
    assert encoder.features(images, 0).dense.shape == (2, 8, 8, 8)
    assert encoder.features(images, -2).dense.shape == (2, 16, 4, 4)
    assert not torch.equal(encoder.features(images, 1).dense, last.dense)
    with pytest.raises(InputError, match="3 layers"):
        encoder.features(images, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_one_run_gives_every_layer(kind):
    encoder, images, runs = make(kind), torch.randn(2, 1, 32, 32), []
    singly = [encoder.features(images, layer).dense for layer in range(3)]
    encoder._stage(0)[0].register_forward_hook(lambda *_: runs.append(1))
    assert all(map(torch.equal, [layer.dense for layer in encoder.layers(images)], singly))
    assert len(encoder.layers(images, 0)) == 1
    raw = encoder.layers(images, final_norm=False)[-1].dense
    assert torch.equal(encoder._norm(raw), singly[-1])
    assert torch.equal(raw, singly[-1]) == (kind == "resnet")
    assert len(runs) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (48, 64), (36, 44), (4, 12)])
def test_the_pyramid_takes_any_size(kind, size):
    encoder = make(kind)
    maps = encoder.pyramid(torch.randn(1, 1, *size))
    expected = [(dim, -(-size[0] // s), -(-size[1] // s)) for dim, s in zip((8, 16), (4, 8), strict=True)]
    assert [tuple(level.shape[1:]) for level in maps] == expected
    assert (encoder.pyramid_dims, encoder.pyramid_strides) == ((8, 16), (4, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_the_pyramid_ends_in_the_final_map(kind):
    encoder, images = make(kind), torch.randn(2, 1, 32, 32)
    assert torch.equal(encoder.pyramid(images)[-1], encoder.encode(encoder.embed(images)))


def test_depth_of_parameters():
    names = {
        "convnext": {
            "body.stem.0.weight": 0,
            "body.stages.0.blocks.0.gamma": 1,
            "body.stages.1.downsample.1.weight": 2,
            "body.stages.1.blocks.1.conv_dw.weight": 3,
            "body.norm_pre.weight": 4,
        },
        "resnet": {
            "body.conv1.weight": 0,
            "body.bn1.bias": 0,
            "body.layer1.0.conv1.weight": 1,
            "body.layer2.0.downsample.0.weight": 2,
            "body.layer2.1.bn2.weight": 3,
        },
    }
    for kind, layers in names.items():
        encoder = make(kind)
        known = dict(encoder.named_parameters())
        assert {name: encoder.layer_of(name) for name in layers if name in known} == layers
        assert {encoder.layer_of(name) for name in known} == set(range(5 if kind == "convnext" else 4))


@pytest.mark.parametrize("kind", KINDS)
def test_drop_path_and_checkpointing_reach_the_blocks(kind):
    require_drop_path(make(kind, drop_path=0.2), 0.2)
    encoder, images = make(kind).train(), torch.randn(2, 1, 32, 32)

    def gradient() -> torch.Tensor:
        encoder.zero_grad()
        encoder.features(images).pooled.pow(2).sum().backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])

    plain = gradient()
    encoder.set_grad_checkpointing()
    assert torch.allclose(plain, gradient(), atol=1e-5)


def test_a_resnet_for_small_images_keeps_its_first_stage_at_stride_2():
    encoder = make("resnet", image_size=28, stem_pool=False)
    assert (encoder.patch_size, encoder.stride, encoder.grid) == (2, 4, (14, 14))
    assert encoder.embed(torch.randn(1, 1, 28, 28)).shape == (1, 14, 14, 64)
    assert encoder.features(torch.randn(1, 1, 28, 28)).dense.shape == (1, 16, 7, 7)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("convnext", {"image_size": 36}, "36 px is not a multiple of the encoder's stride, 8 px"),
        ("resnet", {"image_size": 36}, "36 px is not a multiple of the encoder's stride, 8 px"),
        ("convnext", {"dims": (8,)}, "one number of 1 or more per stage"),
        ("resnet", {"dims": (8,), "depths": (1,)}, "needs two or more"),
        ("resnet", {"dims": (8, 0)}, "one number of 1 or more per stage"),
    ],
)
def test_what_does_not_fit_is_refused(kind, options, message):
    with pytest.raises(InputError, match=message):
        make(kind, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_cut_a_patch_are_refused(kind):
    with pytest.raises(InputError, match="32 x 33 px is not a multiple of the stem"):
        make(kind).embed(torch.randn(1, 1, 32, 33))
