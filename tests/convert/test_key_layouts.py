"""Key layouts: each told by its keys, in any wrapper; an unknown one named."""

import pytest
import torch

from helpers.checkpoints import encoder_of, mm_swin, mm_vit, params
from mimbench.convert import recognise, to_timm
from mimbench.convert.encoder_sizes import describe_encoder
from mimbench.convert.weight_files import unwrap
from mimbench.errors import InputError


@pytest.mark.parametrize(
    ("name", "layout", "mm", "mm_layout"),
    [
        ("simmim_vit_tiny", "simmim-vit", mm_vit, "mmpretrain-beit"),
        ("simmim_swin_tiny", "simmim-swin", mm_swin, "mmpretrain-swin"),
        ("mae_vit_tiny_rawpix", "mae", mm_vit, "mmpretrain-vit"),
        ("beit_vit_tiny", "beit", mm_vit, "mmpretrain-beit"),
    ],
)
def test_official_and_mmpretrain_layouts(name, layout, mm, mm_layout):
    state = params(name)
    assert recognise(state).name == layout
    assert recognise([f"module.{key}" for key in state]).name == layout
    assert recognise(mm(state)).name == mm_layout
    without_head = [key for key in state if not key.startswith(("decoder", "lm_head", "encoder.mask", "mask"))]
    expected = {"simmim-swin": "swin", "mae": "timm-vit"}.get(layout, "timm-beit")
    assert recognise(without_head).name == expected


@pytest.mark.parametrize(("name", "without_decoder"), [("greenmim", "swin"), ("mixmim", "mixmim")])
def test_layouts_of_swins_with_a_pixel_decoder(name, without_decoder):
    state = params(f"{name}_swin_tiny")
    assert recognise(state).name == name
    assert recognise([f"module.{key}" for key in state]).name == name
    assert recognise(key for key in state if not key.startswith("decoder")).name == without_decoder


def test_learned_positions_of_a_swin_are_refused():
    state = params("mixmim_swin_tiny")
    assert describe_encoder(state, recognise(state), "swin-tiny").options["position"] == "sincos-and-relative"
    state["absolute_pos_embed"] = state["absolute_pos_embed"] + 0.1
    with pytest.raises(InputError, match="learned absolute positions"):
        describe_encoder(state, recognise(state), "swin-tiny")


@pytest.mark.parametrize(
    ("kind", "options", "layout"),
    [
        ("vit", {"position": "relative"}, "timm-beit"),
        ("vit", {"position": "learned"}, "timm-vit"),
        ("vit", {"position": "sincos"}, "timm-vit"),
        ("swin", {"window": 4, "depths": [2, 1], "num_heads": [2, 2]}, "timm-swin"),
        ("convnext", {"dims": [8, 16], "depths": [1, 1]}, "timm-convnext"),
        ("convnext", {"dims": [8, 16], "depths": [1, 1], "grn": True, "layer_scale": None}, "timm-convnext"),
        ("resnet", {"dims": [8, 16], "depths": [1, 1]}, "timm-resnet"),
    ],
)
def test_own_exports_are_timm_layouts(kind, options, layout):
    sized = {} if kind in ("convnext", "resnet") else {"embed_dim": 16, "patch_size": 4}
    more = {"depth": 1, "num_heads": 2} if kind == "vit" else {}
    encoder = encoder_of(kind, sized | more | options, 32)
    assert recognise(to_timm(encoder.state_dict())).name == layout
    assert recognise(encoder.state_dict()).kind == encoder.kind


def test_blocks_that_only_pretraining_has_distinguish_beit_v2():
    state = params("beitv2_vit_tiny")
    assert recognise(state).name == "beitv2"
    assert recognise([key for key in state if not key.startswith("cls_pt")]).name == "beit"


def test_a_decoder_of_features_distinguishes_dbot_from_mae():
    state = params("mae_vit_tiny_rawpix")
    features = {key.replace("decoder_pred.", "decoder_predp."): value for key, value in state.items()}
    assert (recognise(state).name, recognise(features).name) == ("mae", "dbot")


def test_an_unknown_layout_names_keys_and_the_known_ones():
    with pytest.raises(InputError, match=r"unknown key layout \(clip\.a, clip\.b\); known: .*mae"):
        recognise(["clip.a", "clip.b"])


@pytest.mark.parametrize("prefix", ["", "vit.", "model.vit."])
def test_names_of_hugging_face_are_called_so(prefix):
    names = ["embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight"]
    with pytest.raises(InputError, match="names are those of Hugging Face transformers"):
        recognise([prefix + name for name in names])


def test_training_wrappers_are_taken_off():
    tensor = torch.ones(2)
    for wrapped in ({"a": tensor}, {"model": {"a": tensor}}, {"state_dict": {"module": {"a": tensor}}, "epoch": 3}):
        assert list(unwrap(wrapped, "x")) == ["a"]
    assert list(unwrap({"model": {"a": tensor, "step": 3}}, "x")) == ["a"]
    for nothing in ([tensor], {"model": {}}, {"epoch": 3}):
        with pytest.raises(InputError, match="holds no state dict"):
            unwrap(nothing, "x.pth")
