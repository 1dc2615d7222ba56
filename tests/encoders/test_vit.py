"""The ViT: positions, dropped patches, windows, other image sizes, depth of parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import Attention

from mimbench.encoders.rope import edge_rotary_table, rotary_table, rotate
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.encoders.windows import partition, unpartition
from mimbench.errors import InputError
from mimbench.masks import repeat_per_mask

POSITIONS = ["relative", "sincos", "learned", "rope", "learned-and-rope", "edge-rope"]
TIMMS = ["relative", "sincos", "learned"]
"""Positions for which `body` is timm's whole model."""


def make(position: str = "relative", *, image_size: int = 16, **options) -> ViT:
    """A ViT whose every parameter matters: tables and tokens are not zero."""
    torch.manual_seed(0)
    config = ViTConfig(
        **{"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "position": position, "layer_scale": 0.5}
        | options
    )
    vit = ViT(config, image_size=image_size, in_channels=1)
    for name, parameter in vit.named_parameters():
        if any(part in name for part in ("table", "pos_embed", "cls", "reg_token")):
            torch.nn.init.normal_(parameter, std=0.5)
    return vit.eval()


def with_strong_attention(vit: ViT) -> ViT:
    """Initial weights are so small that attention hardly changes anything."""
    for block in vit.body.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
        torch.nn.init.normal_(block.attn.proj.weight, std=0.5)
    return vit


@pytest.mark.parametrize("position", POSITIONS)
def test_features_at_every_depth(position):
    vit = make(position)
    images = torch.randn(2, 1, 16, 16)
    last = vit.features(images)
    assert (last.pooled.shape, last.dense.shape, last.prefix.shape) == ((2, 16), (2, 16, 4, 4), (2, 1, 16))
    assert torch.allclose(last.dense, vit.encode(vit.embed(images)), atol=1e-6)
    assert torch.allclose(last.pooled, last.dense.mean((2, 3)), atol=1e-6)
    assert torch.equal(last.dense, vit.features(images, 2).dense)
    assert torch.equal(vit.features(images, 0).dense, vit.features(images, -3).dense)
    assert not torch.allclose(vit.features(images, 1).dense, last.dense)
    for layer in (3, -4):
        with pytest.raises(InputError, match="3 layers"):
            vit.features(images, layer)


@pytest.mark.parametrize("position", POSITIONS)
def test_one_run_gives_every_layer(position):
    vit, images, runs = make(position), torch.randn(2, 1, 16, 16), []
    singly = [vit.features(images, layer) for layer in range(3)]
    vit.body.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    for layer, alone in zip(vit.layers(images), singly, strict=True):
        assert torch.equal(layer.dense, alone.dense)
        assert torch.equal(layer.pooled, alone.pooled)
        assert torch.equal(layer.prefix, alone.prefix)
    assert len(vit.layers(images, -2)) == 2
    raw = vit.layers(images, final_norm=False)[-1]
    assert torch.equal(vit.body.norm(raw.dense.movedim(1, 3)).movedim(3, 1), singly[-1].dense)
    assert not torch.allclose(raw.dense, singly[-1].dense)
    assert len(runs) == 3


@pytest.mark.parametrize("position", TIMMS)
def test_it_is_timms_own_model(position):
    vit = make(position)
    images = torch.randn(2, 1, 16, 16)
    assert torch.allclose(vit.body.forward_features(images)[:, 1:], vit.features(images).dense.flatten(2).mT, atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_keeping_every_patch_in_any_order_changes_nothing(position):
    vit = make(position)
    tokens = vit.embed(torch.randn(2, 1, 16, 16))
    keep = torch.stack([torch.randperm(16) for _ in range(2)])
    whole = vit.encode(tokens).flatten(2).mT
    visible = vit.forward_tokens(tokens, keep).sequence
    assert visible.shape == (2, 17, 16)
    assert torch.allclose(visible[:, 1:], whole.gather(1, keep[..., None].expand(-1, -1, 16)), atol=1e-5)


def test_dropped_patches_are_not_seen():
    vit = make("sincos")
    tokens = vit.embed(torch.randn(1, 1, 16, 16))
    keep = torch.tensor([[3, 0, 9]])
    before = vit.forward_tokens(tokens, keep).sequence
    changed = tokens.clone()
    changed[0, 1, 1, 0] += 5.0  # patch 5
    assert torch.equal(before, vit.forward_tokens(changed, keep).sequence)
    changed[0, 0, 3, 0] += 5.0  # patch 3
    assert not torch.allclose(before, vit.forward_tokens(changed, keep).sequence)


@pytest.mark.parametrize("position", POSITIONS)
def test_layers_of_a_run_on_visible_patches(position):
    vit, runs = make(position), []
    tokens, keep = vit.embed(torch.randn(2, 1, 16, 16)), torch.tensor([[3, 0, 9], [1, 2, 15]])
    vit.body.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    first, last = vit.forward_layers(tokens, (0, -1), keep=keep)
    assert len(runs) == 1
    assert (first.dense.shape, first.prefix.shape, first.pooled.shape) == ((2, 16, 1, 3), (2, 1, 16), (2, 16))
    assert torch.equal(last.sequence, vit.forward_tokens(tokens, keep).sequence)
    (alone,) = vit.forward_layers(tokens[1:], (0,), keep=keep[1:])
    torch.testing.assert_close(alone.sequence, first.sequence[1:])
    assert torch.allclose(last.pooled, last.patches.mean(1), atol=1e-6)


def test_several_masks_share_one_embedding():
    vit, embeddings = make("sincos"), []
    vit.body.patch_embed.proj.register_forward_hook(lambda *_: embeddings.append(1))
    tokens = vit.embed(torch.randn(2, 1, 16, 16))
    keep = torch.stack([torch.randperm(16)[:5] for _ in range(6)])
    together = vit.forward_tokens(repeat_per_mask(tokens, keep), keep).sequence
    assert len(embeddings) == 1
    for row in range(6):
        image = row // 3
        alone = vit.forward_tokens(tokens[image : image + 1], keep[row : row + 1]).sequence[0]
        torch.testing.assert_close(together[row], alone)
    with pytest.raises(InputError, match="5 masks do not divide among 2 images"):
        repeat_per_mask(tokens, keep[:5])


@pytest.mark.parametrize("position", ["sincos", "learned", "rope", "learned-and-rope", "edge-rope"])
@pytest.mark.parametrize(("class_token", "registers"), [(True, 2), (False, 0), (False, 3)])
def test_prefix_tokens_of_any_number(position, class_token, registers):
    vit = make(position, class_token=class_token, registers=registers)
    images, count = torch.randn(2, 1, 16, 16), int(class_token) + registers
    tokens = vit.embed(images)
    last = vit.forward_tokens(tokens)
    assert (vit.num_prefix_tokens, last.prefix.shape) == (count, (2, count, 16))
    keep = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(vit.forward_tokens(tokens, keep).sequence, last.sequence)
    assert ("class-token" in vit.can) is class_token
    if class_token:
        vit.check_pooling("token")
    else:
        with pytest.raises(InputError, match="needs a class token"):
            vit.check_pooling("token")
    assert vit.pyramid(torch.randn(1, 1, 24, 8))[0].shape == (1, 16, 6, 2)
    vit.use_windows(2, ())
    assert vit.pyramid(images)[0].shape == (2, 16, 4, 4)
    names = {name for name, _ in vit.named_parameters()}
    assert ("body.cls_token" in names, "body.reg_token" in names) == (class_token, registers > 0)
    assert vit.no_weight_decay() <= names
    assert {vit.layer_of(name) for name in names if "token" in name} <= {0}
    assert all(
        parameter.requires_grad is ("token" not in name)
        for name, parameter in vit.named_parameters()
        if name != "body.pos_embed"
    )


def test_register_tokens_matter_and_have_no_positions():
    vit = with_strong_attention(make("learned", registers=2))
    images = torch.randn(1, 1, 16, 16)
    assert vit.body.pos_embed.shape == (1, 17, 16)
    before = vit.encode(vit.embed(images))
    with torch.no_grad():
        vit.body.reg_token += 1.0
    assert not torch.allclose(before, vit.encode(vit.embed(images)))


@pytest.mark.parametrize("options", [{"registers": 1}, {"class_token": False}])
@pytest.mark.parametrize("position", ["relative", "relative-per-block"])
def test_relative_positions_take_one_class_token_only(position, options):
    with pytest.raises(InputError, match=rf'is not for encoder\.position "{position}"; choose another'):
        make(position, **options)


def test_rotary_positions_are_those_of_dinov3():
    """Checked against timm's port, which is checked against the original."""
    from timm.layers import apply_rot_embed_cat
    from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3

    table = rotary_table((3, 5), 8, 100.0)
    sine, cosine = RotaryEmbeddingDinoV3(8, temperature=100.0).get_embed([3, 5]).chunk(2, -1)
    torch.testing.assert_close(table, torch.cat((cosine, sine), 1))
    x = torch.randn(2, 4, 15, 8)
    theirs = apply_rot_embed_cat(x, torch.cat((sine, cosine), 1), half=True)
    torch.testing.assert_close(rotate(x, table[None, None]), theirs)


def test_without_rotation_it_is_timms_attention():
    vit, x = make("rope"), torch.randn(2, 6, 16)
    rotary = vit.body.blocks[0].attn
    plain = Attention(16, num_heads=2, qkv_bias=True)
    plain.load_state_dict(rotary.state_dict())
    torch.testing.assert_close(rotary(x), plain(x))
    idle = torch.cat((torch.ones(8), torch.zeros(8)))
    torch.testing.assert_close(rotary(x, idle.expand(1, 1, 6, -1)), plain(x))


def angles_of(place, channels):
    """The official matrix of frequencies (facebookresearch/capi@0145b88f model.py, Rope), written out."""
    steps = channels // 4
    frequencies = 7 * (7 / 7e-4) ** np.linspace(0, -1, steps)
    matrix = np.zeros((2, channels))
    matrix[0, : channels // 2] = matrix[1, -(channels // 2) :] = np.concatenate((frequencies, frequencies))
    return 2 * np.pi * np.array(place) @ matrix


def test_edge_positions_are_the_official_ones():
    keep = torch.tensor([[6, 7, 11], [1, 2, 3]])  # of 3 rows and 5 columns
    table = edge_rotary_table((3, 5), 12, 8, keep)
    places = [(0.5, 0.25), (0.5, 0.5), (1.0, 0.25)]
    low, size = np.array((0.5, 0.25)), np.array((0.5, 0.25))
    edges = [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)]
    places = [low + np.array(edge) * size for edge in edges] + places
    expected = np.array([angles_of(place, 12) for place in places])
    expected = np.concatenate((np.cos(expected), np.sin(expected)), 1)
    np.testing.assert_allclose(table[0, 0].numpy(), expected, atol=1e-5)
    assert table.shape == (2, 1, 11, 24)
    row_zero = edge_rotary_table((3, 5), 12, 8, keep[1:])[0, 0, :8, :6]
    assert torch.allclose(row_zero, torch.ones(8, 6))  # all patches are in the first row, and so are the edges
    whole = edge_rotary_table((3, 5), 12)
    assert torch.equal(whole[:, :, keep[0]], table[:1, :, 8:])


@pytest.mark.parametrize("prefix", [1, 3, 6])
def test_any_number_of_prefix_tokens_lies_on_the_edges(prefix):
    """At equal distances, from the upper left corner on; the lowest frequency gives the place."""
    table = edge_rotary_table((4, 4), 8, prefix)[0, 0, :prefix]
    turns = torch.atan2(table[:, 8 + 1 :: 2], table[:, 1:8:2]) / (2 * torch.pi * 7e-4)
    rows, columns = turns[:, 0], turns[:, 2]
    along = 4 * torch.arange(prefix) / prefix
    assert torch.allclose(rows, (along.clamp(max=1) - (along - 2).clamp(0, 1)), atol=1e-2)
    assert torch.allclose(columns, ((along - 1).clamp(0, 1) - (along - 3).clamp(min=0)), atol=1e-2)


def test_registers_lie_around_the_visible_patches():
    vit = with_strong_attention(make("edge-rope", registers=4, class_token=False))
    tokens = torch.randn(1, 4, 4, 16)
    keep = torch.tensor([[5, 6, 9, 10]])
    same = vit.forward_tokens(tokens, torch.arange(16)[None])
    torch.testing.assert_close(same.sequence, vit.forward_tokens(tokens).sequence)
    moved = tokens.roll((1, 1), (1, 2))
    near = vit.forward_tokens(tokens, keep).prefix
    assert not torch.allclose(near, vit.forward_tokens(moved, keep + 5).prefix, atol=1e-4)


def test_blocks_of_another_form():
    vit = make("sincos", norm="rms", bias=False, drop_path=0.3, drop_path_rule="constant")
    names = {name for name, _ in vit.named_parameters()}
    assert not any(name.startswith("body.blocks") and name.endswith("bias") for name in names)
    assert not any(name.startswith("body.norm.") for name in names)
    assert [block.drop_path1.drop_prob for block in vit.body.blocks] == [0.3] * 3
    rising = make("sincos", drop_path=0.3).body.blocks
    assert [getattr(block.drop_path2, "drop_prob", 0.0) for block in rising] == pytest.approx([0.0, 0.15, 0.3])
    features = vit.features(torch.randn(2, 1, 16, 16)).patches
    torch.testing.assert_close(features.square().mean(-1), torch.ones(2, 16), atol=1e-3, rtol=0)
    vit.train().encode(vit.embed(torch.randn(2, 1, 16, 16))).sum().backward()
    assert {"norm", "bias", "drop_path_rule"} <= set(make("sincos").config.left_out())


@pytest.mark.parametrize(
    ("position", "options", "words"),
    [
        ("relative", {"norm": "rms"}, 'encoder.norm does nothing for encoder.position "relative"; leave it out'),
        ("relative-per-block", {"bias": False}, "encoder.bias does nothing"),
        ("edge-rope", {"rope_base": 10.0}, 'encoder.rope_base does nothing for encoder.position "edge-rope"'),
        ("edge-rope", {"num_heads": 8}, "heads whose channels are a multiple of 4; these have 2"),
    ],
)
def test_options_of_the_form_that_do_nothing_are_refused(position, options, words):
    with pytest.raises(InputError, match=words):
        make(position, **options)


def test_rotary_positions_depend_on_the_order_of_patches():
    vit, tokens = with_strong_attention(make("rope")), torch.randn(1, 4, 4, 16)
    moved = tokens.roll(1, 2)
    assert not torch.allclose(vit.encode(tokens).roll(1, 3), vit.encode(moved), atol=1e-3)
    with pytest.raises(InputError, match="heads whose channels are a multiple of 4; these have 2"):
        make("rope", num_heads=8)
    assert vit.config.shaping()["position"] == "rope"
    assert {"rope_base", "registers", "class_token"} <= set(vit.config.left_out())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("size", [(16, 16), (24, 32), (8, 8)])
def test_the_pyramid_takes_any_size(position, size):
    vit = make(position)
    (level,) = vit.pyramid(torch.randn(1, 1, *size))
    assert level.shape == (1, 16, size[0] // 4, size[1] // 4)
    assert vit.pyramid_strides == (4,)
    assert vit.pyramid_dims == (16,)


@pytest.mark.parametrize("position", POSITIONS)
def test_windows_are_separate_but_for_global_blocks(position):
    vit = make(position)
    images = torch.randn(1, 1, 32, 32)
    changed = images.clone()
    changed[..., 28:, 28:] += 3.0
    vit.use_windows(4, ())
    (a,), (b,) = vit.pyramid(images), vit.pyramid(changed)
    assert torch.equal(a[..., :4, :4], b[..., :4, :4])
    assert not torch.allclose(a[..., 4:, 4:], b[..., 4:, 4:])
    vit.use_windows(4, (1,))
    (a,), (b,) = vit.pyramid(images), vit.pyramid(changed)
    assert not torch.allclose(a[..., :4, :4], b[..., :4, :4])
    vit.use_windows(0, ())
    assert vit.windows is None


def test_one_window_over_everything_is_a_global_block():
    vit = make("sincos")
    images = torch.randn(1, 1, 32, 32)
    vit.use_windows(8, ())
    (one,) = vit.pyramid(images)
    vit.use_windows(4, (0, 1, 2))
    (other,) = vit.pyramid(images)
    assert torch.allclose(one, other, atol=1e-6)


def test_windows_pad_and_come_back():
    x = torch.randn(2, 5, 7, 3)
    windows, padded = partition(x, (4, 4))
    assert windows.shape == (2 * 2 * 2, 16, 3)
    assert padded == (8, 8)
    assert torch.equal(unpartition(windows, (4, 4), padded, (5, 7)), x)
    assert torch.equal(windows[0].view(4, 4, 3), x[0, :4, :4])


def test_an_index_first_made_in_evaluation_serves_training():
    vit = make()
    with torch.inference_mode():
        vit.features(torch.randn(1, 1, 16, 16))
    vit.train()
    vit.features(torch.randn(1, 1, 16, 16)).pooled.sum().backward()
    assert vit.body.rel_pos_bias.relative_position_bias_table.grad.abs().sum() > 0


def test_checkpointing_changes_memory_not_gradients():
    vit = make().train()
    images = torch.randn(2, 1, 16, 16)

    def gradient() -> torch.Tensor:
        vit.zero_grad()
        vit.features(images).pooled.pow(2).sum().backward()
        return vit.body.patch_embed.proj.weight.grad.clone()

    plain = gradient()
    vit.set_grad_checkpointing()
    assert torch.allclose(plain, gradient(), atol=1e-6)


def test_depth_of_parameters():
    vit = make("learned")
    assert {
        name: vit.layer_of(name) for name in ("body.cls_token", "body.pos_embed", "body.patch_embed.proj.weight")
    } == {
        "body.cls_token": 0,
        "body.pos_embed": 0,
        "body.patch_embed.proj.weight": 0,
    }
    assert vit.layer_of("body.blocks.2.attn.qkv.weight") == 3
    assert vit.layer_of("body.norm.weight") == 4


def test_fixed_positions_are_not_trained():
    vit = make("sincos")
    assert not vit.body.pos_embed.requires_grad
    assert "body.pos_embed" in make("learned").no_weight_decay()
    assert vit.no_weight_decay() == {"body.cls_token"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 18}, "image size 18 px is not a multiple of the patch size 4 px"),
        ({"embed_dim": 15}, "embed_dim 15 is not a multiple of encoder.num_heads 2"),
        ({"embed_dim": 18, "position": "sincos"}, "divisible by 4"),
    ],
)
def test_impossible_shapes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**{"position": "relative"} | options)


def test_a_bad_window_is_refused():
    vit = make()
    with pytest.raises(InputError, match="outside this encoder's 3 blocks"):
        vit.use_windows(4, (3,))
    with pytest.raises(InputError, match="holds nothing"):
        vit.use_windows(-1, ())
    with pytest.raises(InputError, match="30 x 16 px is not a multiple"):
        vit.pyramid(torch.randn(1, 1, 30, 16))


@pytest.mark.parametrize("position", POSITIONS)
def test_attention_dropout_acts_only_in_training(position):
    vit, plain, images = make(position, attention_dropout=0.5), make(position), torch.randn(2, 1, 16, 16)
    vit.load_state_dict(plain.state_dict())
    assert torch.equal(vit.features(images).dense, plain.features(images).dense)
    assert not torch.equal(vit.train().features(images).dense, vit.features(images).dense)
    assert torch.equal(plain.train().features(images).dense, plain.features(images).dense)
    vit.use_windows(2, ())
    assert not torch.equal(vit.pyramid(images)[0], vit.pyramid(images)[0])


def test_no_attention_dropout_is_what_encoders_were_before_there_was_such_an_option():
    assert "attention_dropout" not in ViTConfig().shaping()
    assert ViTConfig(attention_dropout=0.1).shaping()["attention_dropout"] == 0.1


@pytest.mark.parametrize("position", POSITIONS)
def test_mixed_precision_and_checkpointing_change_little(position):
    vit = make(position).train()
    tokens, keep = vit.embed(torch.randn(2, 1, 16, 16)), torch.tensor([[3, 0, 9], [1, 2, 15]])
    exact = vit.forward_tokens(tokens, keep).sequence
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(vit.forward_tokens(tokens, keep).sequence.float(), exact, atol=0.05, rtol=0.05)
    vit.set_grad_checkpointing()
    torch.testing.assert_close(vit.forward_tokens(tokens, keep).sequence, exact)


def test_post_norm_takes_layer_norms_only():
    with pytest.raises(InputError, match=r'encoder\.norm "rms" is not for encoder\.post_norm; leave one of them out'):
        ViT.build(ViTConfig(position="sincos", post_norm=True, norm="rms"), image_size=32, in_channels=1)
