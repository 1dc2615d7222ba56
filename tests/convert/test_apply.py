"""Tensors land where they belong, whatever the code they come from; what does not fit is an error that says so."""

import pytest
import torch

from helpers.checkpoints import SWIN, VIT, encoder_of, method_of, mm_swin, mm_vit, params
from mimbench.convert import recognise, to_encoder, to_method, to_timm
from mimbench.convert.file_tensors import TABLE, FileTensor, FileTensors, match_forms
from mimbench.convert.file_tensors import rename_tensors as to_pieces
from mimbench.convert.key_layouts import LAYOUTS
from mimbench.errors import InputError

TIMM_BEIT = next(layout for layout in LAYOUTS if layout.name == "timm-beit")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_trained_tensor_is_stored_and_only_buffers_are_left_out(official):
    _, state, method = official
    loaded = to_method(state, recognise(state), method)
    trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert trained <= set(loaded.state)
    used = {key for keys in loaded.sources.values() for key in keys}
    assert used | set(loaded.left_out) == set(state)
    assert not used & set(loaded.left_out)
    assert all(reason for reason in loaded.left_out.values())


def test_mmpretrain_gives_the_same_as_the_official_layout(official):
    name, state, method = official
    mm = (mm_swin if "swin" in name else mm_vit)(state)
    ours, theirs = to_method(mm, recognise(mm), method), to_method(state, recognise(state), method)
    assert same(ours.state, theirs.state)
    assert set(mm) == {key for keys in ours.sources.values() for key in keys} | set(ours.left_out)


def test_unfold_order_is_that_of_mmcv():
    transformer = pytest.importorskip("mmcv.cnn.bricks.transformer")
    theirs = transformer.PatchMerging(8, 16)
    torch.nn.init.normal_(theirs.norm.weight)
    torch.nn.init.normal_(theirs.norm.bias)
    layout = next(layout for layout in LAYOUTS if layout.name == "mmpretrain-swin")
    state = {f"backbone.stages.0.downsample.{name}": value for name, value in theirs.state_dict().items()}
    state["backbone.stages.1.blocks.0.norm1.weight"] = torch.ones(16)
    pieces = to_pieces(state, layout).tensors
    ours = encoder_of("swin", SWIN, 64).body.layers[1].downsample
    ours.load_state_dict({name: pieces[f"layers.1.downsample.{name}"].value for name in theirs.state_dict()})
    x = torch.randn(2, 4, 4, 8)
    expected, _ = theirs(x.flatten(1, 2), (4, 4))
    torch.testing.assert_close(ours(x).flatten(1, 2), expected)


def test_round_trip_through_timm(official):
    _, state, method = official
    encoder = method.encoder
    first = to_encoder(state, recognise(state), encoder)
    assert not first.missing
    exported = to_timm(first.state)
    second = to_encoder(exported, recognise(exported), encoder)
    assert same(first.state, second.state)
    assert not second.left_out


def test_the_methods_part_is_left_out_of_an_encoder_and_of_a_method_that_it_does_not_fit():
    state = params("mae_vit_tiny_rawpix")
    encoder = to_encoder(state, recognise(state), encoder_of("vit", VIT | {"position": "sincos"}, 32))
    assert "belongs to the pretraining method" in encoder.left_out["decoder_embed.weight"]
    method = method_of("mae_vit_tiny_rawpix")
    state["decoder_embed.weight"] = torch.zeros(25, 32)
    loaded = to_method(state, recognise(state), method)
    assert {name.split(".")[0] for name in loaded.state} == {"encoder"}
    assert "decoder_embed.weight is 25x32, here project.weight is 24x32" in loaded.left_out["mask_token"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_token": torch.zeros(1, 1, 33)}, "cls_token is 1x1x33 in the file, 1x1x32 here"),
        ({"patch_embed.proj.weight": torch.zeros(32, 3, 8, 8)}, "patch_embed.proj.weight is 32x3x8x8 in the file"),
        ({"blocks.2.norm1.weight": torch.zeros(32)}, "no matching parameter for blocks.2.norm1.weight"),
        ({"norm.bias": torch.full((32,), float("nan"))}, "norm.bias holds values that are not finite"),
        ({"module.norm.bias": torch.zeros(32)}, "both mean 'norm.bias'"),
        ({f"rel_pos_bias.{TABLE}": torch.zeros(227, 4)}, f"rel_pos_bias.{TABLE} is 227x4 in the file"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    state = params("beit_vit_tiny") | change
    encoder = encoder_of("vit", VIT | {"layer_scale": 0.1}, 32)
    with pytest.raises(InputError, match=message):
        to_encoder(state, recognise(state), encoder)


def test_another_kind_of_encoder_is_refused():
    state = params("beit_vit_tiny")
    with pytest.raises(InputError, match="of layout beit, a vit; the encoder is a swin"):
        to_encoder(state, recognise(state), encoder_of("swin", SWIN, 64))


def test_missing_tensors_are_listed():
    state = params("beit_vit_tiny")
    del state["blocks.1.mlp.fc2.bias"]
    loaded = to_encoder(state, recognise(state), encoder_of("vit", VIT | {"layer_scale": 0.1}, 32))
    assert loaded.missing == ("body.blocks.1.mlp.fc2.bias",)


def test_biases_of_queries_keys_and_values_are_split_and_joined():
    joint = torch.arange(6.0)
    split = match_forms(_pieces(**{"blocks.0.attn.qkv.bias": joint}), {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"})
    assert split.tensors["blocks.0.attn.q_bias"].value.tolist() == [0, 1]
    assert split.tensors["blocks.0.attn.v_bias"].value.tolist() == [4, 5]
    assert "softmax" in split.changed["blocks.0.attn.qkv.bias"]
    separate = {"blocks.0.attn.q_bias": joint[:2], "blocks.0.attn.v_bias": joint[4:]}
    joined = match_forms(_pieces(**separate), {"blocks.0.attn.qkv.bias"}).tensors["blocks.0.attn.qkv.bias"]
    assert joined.value.tolist() == [0, 1, 0, 0, 4, 5]
    assert joined.sources == ("blocks.0.attn.q_bias", "blocks.0.attn.v_bias")


def test_a_stored_key_bias_is_left_out_with_its_reason():
    pieces = to_pieces({"blocks.0.attn.k_bias": torch.zeros(2)}, TIMM_BEIT)
    assert "softmax" in pieces.left_out["blocks.0.attn.k_bias"]


def test_relative_position_tables_are_shared_and_copied():
    shared, first, second = f"rel_pos_bias.{TABLE}", f"blocks.0.attn.{TABLE}", f"blocks.1.attn.{TABLE}"
    table = torch.randn(12, 2)
    copied = match_forms(_pieces(**{shared: table}), {first, second})
    assert torch.equal(copied.tensors[first].value, table)
    assert torch.equal(copied.tensors[second].value, table)
    assert shared not in copied.tensors
    united = match_forms(_pieces(**{first: table, second: table.clone()}), {shared})
    assert list(united.tensors) == [shared]
    assert united.tensors[shared].sources == (first, second)
    with pytest.raises(InputError, match="tables of each block's own"):
        match_forms(_pieces(**{first: table, second: table + 1}), {shared})


def test_layer_scale_and_pooled_norm_change_names():
    gamma = torch.ones(2)
    matched = match_forms(_pieces(**{"blocks.0.gamma_1": gamma}), {"blocks.0.ls1.gamma"}).tensors
    assert list(matched) == ["blocks.0.ls1.gamma"]
    matched = match_forms(_pieces(**{"blocks.0.ls2.gamma": gamma}), {"blocks.0.gamma_2"}).tensors
    assert list(matched) == ["blocks.0.gamma_2"]
    pooled = _pieces(**{"fc_norm.weight": gamma})
    assert list(match_forms(pooled, {"norm.weight"}).tensors) == ["norm.weight"]
    assert "stands in" in pooled.changed["fc_norm.weight"]
    both = match_forms(_pieces(**{"fc_norm.weight": gamma, "norm.weight": gamma}), {"norm.weight"})
    assert "pooled features" in both.left_out["fc_norm.weight"]


def test_half_precision_comes_back_as_single():
    state = {
        key: value.half() if value.is_floating_point() else value for key, value in params("beit_vit_tiny").items()
    }
    loaded = to_encoder(state, recognise(state), encoder_of("vit", VIT | {"layer_scale": 0.1}, 32))
    assert {value.dtype for value in loaded.state.values()} == {torch.float32}


def _pieces(**state):
    return FileTensors({name: FileTensor(value, (name,)) for name, value in state.items()})
