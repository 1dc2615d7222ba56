"""Models of timm by name: features, tokens, abilities, depths, weights from a file, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from mimbench.convert import resize_positions
from mimbench.encoders.rebuilding import rebuild_encoder
from mimbench.encoders.timm_model import TimmConfig, TimmModel
from mimbench.errors import InputError
from mimbench.masks import replace_masked
from mimbench.report.records.backbones import name_backbone

VIT = {"model": "test_vit", "arguments": {"depth": 3, "patch_size": 8}}
SMALL_MODELS = {
    "ViT": (VIT, 32),
    "registers": ({"model": "vit_tiny_patch16_224", "arguments": {"depth": 2, "reg_tokens": 2}}, 32),
    "DINOv3": ({"model": "vit_small_patch16_dinov3", "arguments": {"depth": 2}}, 32),
    "ConvNeXt": ({"model": "test_convnext"}, 64),
    "ResNet": ({"model": "test_resnet"}, 64),
    "Swin": ({"model": "swin_tiny_patch4_window7_224", "arguments": {"depths": [2, 2], "num_heads": [3, 6]}}, 56),
    "Mixer": ({"model": "mixer_s32_224"}, 32),
}


def make(options: dict, size: int, channels: int = 1) -> TimmModel:
    torch.manual_seed(0)
    return TimmModel(TimmConfig(**options), image_size=size, in_channels=channels).eval()


@pytest.fixture(params=SMALL_MODELS)
def encoder(request) -> TimmModel:
    return make(*SMALL_MODELS[request.param])


def test_features_of_every_layer_tokens_and_maps_agree(encoder):
    images = torch.randn(2, 1, encoder.image_size, encoder.image_size)
    tokens = encoder.embed(images)
    assert tokens.shape == (2, *encoder.grid, encoder.embed_dim)
    layers, last = encoder.layers(images), encoder.forward_tokens(tokens)
    assert len(layers) == encoder.num_layers
    side = encoder.image_size // encoder.stride
    assert last.dense.shape == (2, encoder.out_dim, side, side)
    assert last.prefix.shape == (2, encoder.num_prefix_tokens, encoder.out_dim)
    assert last.pooled.shape == (2, encoder.out_dim)
    torch.testing.assert_close(layers[-1].dense, last.dense)
    first, again = encoder.forward_layers(tokens, (0, -1))
    torch.testing.assert_close(first.dense, encoder.features(images, 0).dense)
    torch.testing.assert_close(again.sequence, last.sequence)
    assert [level.shape[1] for level in encoder.pyramid(images)] == list(encoder.pyramid_dims)
    assert [encoder.image_size // level.shape[-1] for level in encoder.pyramid(images)] == list(encoder.pyramid_strides)
    assert ("pyramid" in encoder.can) == (len(encoder.pyramid_strides) > 1)


def test_final_features_are_timms(encoder):
    images = torch.randn(2, 1, encoder.image_size, encoder.image_size)
    final = encoder.body.forward_features(images)
    last = encoder.features(images)
    if "ConvNeXt" in type(encoder.body).__name__:
        final = encoder.body.head.norm(final)
    if final.ndim == 3:
        torch.testing.assert_close(final, last.sequence)
    else:
        channels_last = final.shape[-1] == encoder.out_dim and final.shape[1] != encoder.out_dim
        torch.testing.assert_close(final.permute(0, 3, 1, 2) if channels_last else final, last.dense)


def test_masked_pixels_do_not_matter_behind_mask_tokens(encoder):
    size = encoder.image_size
    images = torch.randn(2, 1, size, size)
    mask = torch.zeros(2, *encoder.grid, dtype=torch.bool)
    mask[:, :1, :1] = True
    token = torch.randn(1, 1, 1, encoder.embed_dim)
    changed = images.clone()
    changed[..., : encoder.patch_size, : encoder.patch_size] += 3.0
    before, after = encoder.encode_masked(images, mask, token), encoder.encode_masked(changed, mask, token)
    torch.testing.assert_close(before, after)
    assert not torch.allclose(encoder.encode(encoder.embed(images)), encoder.encode(encoder.embed(changed)))


def test_every_parameter_has_a_depth_and_all_but_unused_ones_a_gradient(encoder):
    images = torch.randn(2, 1, encoder.image_size, encoder.image_size)
    encoder.features(images).sequence.square().sum().backward()
    depths = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert set(range(encoder.num_layers + 1)) <= set(depths.values()) <= set(range(encoder.num_layers + 2))
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (name.removeprefix("body.") not in encoder.parts.unused), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert encoder.no_weight_decay() <= set(depths)


def test_depths_are_those_of_blocks_and_stages():
    vit, resnet = make(*SMALL_MODELS["ViT"]), make(*SMALL_MODELS["ResNet"])
    names = ("body.cls_token", "body.patch_embed.proj.weight", "body.blocks.0.norm1.weight", "body.blocks.2.norm1.bias")
    assert [vit.layer_of(name) for name in (*names, "body.norm.weight")] == [0, 0, 1, 3, 4]
    assert [resnet.layer_of(f"body.{name}.weight") for name in ("conv1.0", "layer1.0.conv1", "layer4.0.bn1")] == [
        0,
        1,
        4,
    ]


def test_a_vit_drops_masked_patches_and_others_refuse():
    vit = make(*SMALL_MODELS["registers"])
    tokens, keep = vit.embed(torch.randn(2, 1, 64, 64)), torch.tensor([[3, 0, 9], [1, 2, 15]])
    before = vit.forward_layers(tokens, (0, 1), keep=keep)
    assert (before[1].dense.shape, before[1].prefix.shape) == ((2, 192, 1, 3), (2, 3, 192))
    changed = replace_masked(tokens, torch.arange(16).view(1, 4, 4).expand(2, -1, -1) == 5, torch.zeros(1, 1, 1, 192))
    torch.testing.assert_close(vit.forward_tokens(changed, keep).sequence, before[1].sequence)
    whole, everything = vit.forward_tokens(tokens), torch.arange(16).expand(2, -1)
    torch.testing.assert_close(vit.forward_tokens(tokens, everything).sequence, whole.sequence)
    with pytest.raises(InputError, match="timm's test_convnext cannot drop masked patches"):
        make({"model": "test_convnext"}, 64).forward_tokens(torch.randn(1, 16, 16, 24), keep)


def test_abilities_depend_on_the_model():
    can = {name: make(*spec).can for name, spec in SMALL_MODELS.items()}
    assert {name for name in can if "visible-only" in can[name]} == {"ViT", "registers"}
    assert {name for name in can if "class-token" in can[name]} == {"ViT", "registers", "DINOv3"}
    assert {name for name in can if "any-size" not in can[name]} == {"Mixer"}
    assert {name for name in can if "one-grid" in can[name]} == {"ViT", "registers", "DINOv3", "Mixer"}
    assert all(abilities <= TimmModel.can for abilities in can.values())
    sizes = TimmModel.sizes_only(TimmConfig(**VIT), image_size=32, in_channels=1)
    assert (sizes.can, sizes.grid, sizes.num_layers) == (can["ViT"], (4, 4), 3)
    assert not list(sizes.parameters())


def test_an_encoder_of_one_size_refuses_others():
    with pytest.raises(InputError, match="timm's mixer_s32_224 takes images of 32 px only, not 64 x 64"):
        make(*SMALL_MODELS["Mixer"]).pyramid(torch.randn(1, 1, 64, 64))


def test_equal_seeds_give_equal_weights_and_states_load_strictly(encoder):
    options = encoder.config.model_dump()
    twin = make(options, encoder.image_size)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in encoder.state_dict().items())
    timms = timm.create_model(
        encoder.config.model,
        num_classes=0,
        in_chans=1,
        **encoder.config.arguments,
        **({"img_size": encoder.image_size} if timm.get_pretrained_cfg(encoder.config.model).fixed_input_size else {}),
    )
    timms.load_state_dict({name.removeprefix("body."): value for name, value in encoder.state_dict().items()})


def test_it_is_rebuilt_at_another_size_with_resampled_positions():
    vit = make(*SMALL_MODELS["ViT"])
    larger = rebuild_encoder(vit, image_size=48, drop_path=0.2)
    larger.load_state_dict(resize_positions(vit.state_dict(), larger))
    assert larger.body.pos_embed.shape == (1, 1 + 36, 64)
    assert larger.config.drop_path == 0.2


def test_weights_come_from_a_file_whose_content_counts(tmp_path):
    source = timm.create_model("test_vit", num_classes=10, in_chans=3, img_size=32, depth=3, patch_size=8)
    files = {"a.safetensors": tmp_path / "a.safetensors", "b.pth": tmp_path / "b.pth"}
    save_file(source.state_dict(), files["a.safetensors"])
    torch.save({"state_dict": source.state_dict()}, files["b.pth"])
    images = torch.randn(2, 3, 32, 32)
    for file in files.values():
        encoder = make(VIT | {"weights": file}, 32, channels=3)
        torch.testing.assert_close(encoder.features(images).sequence, source.eval().forward_features(images))
    content = TimmConfig(**VIT, weights=files["a.safetensors"]).shaping()["weights"]
    assert content.startswith("sha256:")
    assert TimmConfig(**VIT, weights=files["b.pth"]).shaping()["weights"] != content
    rebuilt = rebuild_encoder(encoder)
    assert rebuilt.config.weights is None
    assert not torch.equal(rebuilt.body.pos_embed, encoder.body.pos_embed)
    with torch.device("meta"):
        assert make(VIT | {"weights": files["b.pth"]}, 32, channels=3).body.pos_embed.is_meta


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    other = timm.create_model("test_convnext", num_classes=0)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"encoder\.weights: .*other\.safetensors does not hold .*: it lacks blocks"):
        make(VIT | {"weights": tmp_path / "other.safetensors"}, 32)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"encoder\.weights: .*text\.pth cannot be read as weights"):
        make(VIT | {"weights": tmp_path / "text.pth"}, 32)


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"model": "vit_smal_patch16_224"}, 224, r"has no model 'vit_smal_patch16_224'; did you mean 'vit_small_"),
        ({"model": "hf_hub:timm/test_vit"}, 224, r"timm \S+ has no model 'hf_hub:timm/test_vit'"),
        ({"model": "test_vit"}, 40, r"timm's test_vit does not run on images of 40 px: Input height"),
        (
            {"model": "test_vit", "arguments": {"deepth": 3}},
            32,
            r"encoder\.arguments: timm's test_vit takes no 'deepth'",
        ),
        (
            {"model": "test_resnet"},
            30,
            r"image size 30 px is not a multiple of the patches of timm's test_resnet, 4 px",
        ),
    ],
)
def test_what_cannot_serve_is_refused_in_one_line(options, size, message):
    with pytest.raises(InputError, match=message) as refused:
        make(options, size)
    assert "\n" not in str(refused.value)


def test_records_name_the_model():
    assert name_backbone("timm", {"model": "convnext_tiny"}) == "convnext_tiny"
