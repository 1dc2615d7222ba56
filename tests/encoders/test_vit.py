"""The ViT: positions, dropped patches, windows, other image sizes, depth of parameters."""

from __future__ import annotations

import pytest
import torch

from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.encoders.windows import partition, unpartition
from mimbench.errors import InputError

POSITIONS = ["relative", "sincos", "learned"]


def make(position: str = "relative", *, image_size: int = 16, **options) -> ViT:
    """A ViT whose every parameter matters: tables and tokens are not zero."""
    torch.manual_seed(0)
    config = ViTConfig(
        **{"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "position": position, "layer_scale": 0.5}
        | options
    )
    vit = ViT(config, image_size=image_size, in_channels=1)
    for name, parameter in vit.named_parameters():
        if "table" in name or "pos_embed" in name or "cls" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return vit.eval()


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


@pytest.mark.parametrize("position", POSITIONS)
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
    visible = vit.encode_visible(tokens, keep)
    assert visible.shape == (2, 17, 16)
    assert torch.allclose(visible[:, 1:], whole.gather(1, keep[..., None].expand(-1, -1, 16)), atol=1e-5)


def test_dropped_patches_are_not_seen():
    vit = make("sincos")
    tokens = vit.embed(torch.randn(1, 1, 16, 16))
    keep = torch.tensor([[3, 0, 9]])
    before = vit.encode_visible(tokens, keep)
    changed = tokens.clone()
    changed[0, 1, 1, 0] += 5.0  # patch 5
    assert torch.equal(before, vit.encode_visible(changed, keep))
    changed[0, 0, 3, 0] += 5.0  # patch 3
    assert not torch.allclose(before, vit.encode_visible(changed, keep))


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
