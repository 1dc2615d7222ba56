"""The Swin: timm's own numbers, other image sizes, depth of parameters, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mimbench.convert import resize_positions
from mimbench.encoders.blocks import sincos_positions
from mimbench.encoders.inverse_swin import InverseSwin
from mimbench.encoders.rebuilding import require_drop_path
from mimbench.encoders.swin import Swin, SwinConfig
from mimbench.encoders.swin_blocks import shifted_window_block, window_mask
from mimbench.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window": 4}


def make(*, image_size: int = 32, **options) -> Swin:
    """Grids 16 and 8, window 4: both stages shift. Every parameter matters."""
    torch.manual_seed(0)
    swin = Swin(SwinConfig(**SMALL | options), image_size=image_size, in_channels=1)
    for name, parameter in swin.named_parameters():
        if "table" in name or "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    return swin.eval()


def test_it_is_timms_own_model():
    swin, images = make(), torch.randn(2, 1, 32, 32)
    assert torch.equal(swin.encode(swin.embed(images)), swin.body.forward_features(images).permute(0, 3, 1, 2))
    assert torch.equal(swin.embed(images), swin.body.patch_embed(images))


def test_features_at_every_depth():
    swin, images = make(), torch.randn(2, 1, 32, 32)
    last = swin.features(images)
    assert (last.pooled.shape, last.dense.shape, last.prefix.shape) == ((2, 16), (2, 16, 8, 8), (2, 0, 16))
    assert torch.equal(last.dense, swin.encode(swin.embed(images)))
    assert torch.allclose(last.pooled, last.dense.mean((2, 3)), atol=1e-6)
    assert torch.equal(last.dense, swin.features(images, 3).dense)
    assert [tuple(swin.features(images, layer).dense.shape[1:]) for layer in range(4)] == [(8, 16, 16)] * 2 + [
        (16, 8, 8)
    ] * 2
    stage = swin.body.layers[0](swin.body.patch_embed(images))
    assert torch.equal(swin.features(images, 1).dense, stage.permute(0, 3, 1, 2))
    for layer in (4, -5):
        with pytest.raises(InputError, match="4 layers"):
            swin.features(images, layer)


def test_one_run_gives_every_layer():
    swin, images, runs = make(), torch.randn(2, 1, 32, 32), []
    singly = [swin.features(images, layer).dense for layer in range(4)]
    swin.body.layers[0].blocks[0].register_forward_hook(lambda *_: runs.append(1))
    assert all(map(torch.equal, [layer.dense for layer in swin.layers(images)], singly))
    assert len(swin.layers(images, 1)) == 2
    raw = swin.layers(images, final_norm=False)[-1].dense
    assert torch.equal(swin.body.norm(raw.movedim(1, 3)).movedim(3, 1), singly[-1])
    assert not torch.allclose(raw, singly[-1])
    assert len(runs) == 3


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (38, 34), (6, 10), (2, 2)])
def test_the_pyramid_takes_any_size(size):
    swin = make()
    maps = swin.pyramid(torch.randn(1, 1, *size))
    expected = [
        (dim, -(-size[0] // stride), -(-size[1] // stride))
        for dim, stride in zip(swin.pyramid_dims, swin.pyramid_strides, strict=True)
    ]
    assert [tuple(level.shape[1:]) for level in maps] == expected
    assert all(bool(level.isfinite().all()) for level in maps)
    assert (swin.pyramid_dims, swin.pyramid_strides) == ((8, 16), (2, 4))


def test_the_pyramid_ends_in_the_final_map():
    swin, images = make(), torch.randn(2, 1, 32, 32)
    first, last = swin.pyramid(images)
    assert torch.equal(last, swin.encode(swin.embed(images)))
    assert torch.allclose(first.mean(1), torch.zeros(2, 16, 16), atol=1e-5)
    assert torch.allclose(first.var(1, correction=0), torch.ones(2, 16, 16), atol=1e-3)


@pytest.mark.parametrize("size", [(64, 48), (16, 48)])
def test_at_another_size_it_is_the_model_built_for_that_size(size):
    """As official: weights moved into a model for another image size, where windows fit."""
    swin = make()
    images = torch.randn(1, 1, *size)
    there = type(swin.body)(
        img_size=size,
        patch_size=2,
        in_chans=1,
        num_classes=0,
        global_pool="",
        embed_dim=8,
        depths=(2, 2),
        num_heads=(1, 2),
        window_size=4,
    ).eval()
    there.load_state_dict(swin.body.state_dict())
    expected = there.forward_features(images).permute(0, 3, 1, 2)
    assert torch.allclose(swin.pyramid(images)[-1], expected, atol=1e-5)


def test_padding_is_not_seen():
    """A 5 x 5 grid in windows of 4: were the padding seen, its content would matter."""
    block = make().body.layers[0].blocks[1]
    mask = window_mask((5, 5), (4, 4), (0, 0), torch.zeros(()))
    assert mask.shape == (4, 16, 16)
    corner = mask[3]  # one real cell, at (4, 4)
    assert corner[0, 0] == 0
    assert (corner[0, 1:] == -100).all()
    x = torch.randn(1, 1, 1, 8)  # alone in its window, whatever the bias: attention to itself
    alone = block.attn.proj(block.attn.qkv(block.norm1(x))[..., 16:])
    y = x + alone
    assert torch.allclose(shifted_window_block(block, x), y + block.mlp(block.norm2(y)), atol=1e-5)


def test_masks_equal_timms_without_padding():
    block = make().body.layers[0].blocks[1]
    ours = window_mask((16, 16), (4, 4), (2, 2), torch.zeros(()))
    assert torch.equal(ours, block.attn_mask)


def test_small_grids_shrink_the_window_and_drop_the_shift():
    """As the official code: grids 16, 8, 4, 2 with window 4."""
    swin = make(image_size=64, patch_size=4, depths=(2, 2, 2, 2), num_heads=(1, 1, 1, 1))
    blocks = [stage.blocks[1] for stage in swin.body.layers]
    assert [block.window_size for block in blocks] == [(4, 4), (4, 4), (4, 4), (2, 2)]
    assert [block.shift_size for block in blocks] == [(2, 2), (2, 2), (0, 0), (0, 0)]


def test_depth_of_parameters_is_the_official_one():
    """The official names put a merging at the end of a stage, timm at the start of the next."""
    layers = json.loads((GOLDEN / "layer_decay.json").read_text())["simmim_finetune_swin"]["layer_id"]
    swin = make(image_size=64, patch_size=4, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8))

    def official(name: str) -> str:
        parts = name.removeprefix("body.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        return ".".join(parts)

    ours = {official(name): swin.layer_of(name) for name, _ in swin.named_parameters()}
    assert ours == {name: layer for name, layer in layers.items() if not name.startswith("head")}
    assert swin.num_layers == 7
    assert swin.no_weight_decay() == set()


def test_drop_path_rises_linearly_over_all_blocks():
    swin = make(drop_path=0.3)
    require_drop_path(swin, 0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in swin.body.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_checkpointing_changes_memory_not_gradients():
    swin, images = make().train(), torch.randn(2, 1, 32, 32)

    def gradient() -> torch.Tensor:
        swin.zero_grad()
        swin.features(images).pooled.pow(2).sum().backward()
        return swin.body.patch_embed.proj.weight.grad.clone()

    plain = gradient()
    swin.set_grad_checkpointing()
    assert torch.allclose(plain, gradient(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 33}, "33 px is not a multiple of the patch size 2 px"),
        ({"image_size": 30, "window": 15}, "30 px is not a multiple of 4 px, the stride of stage 1"),
        ({"image_size": 36}, "window 4 does not divide the 18 x 18 grid of stage 0"),
        ({"num_heads": (3, 2)}, "num_heads 3 does not divide the 8 channels of stage 0"),
        ({"num_heads": (1,)}, "one number of 1 or more per stage"),
        ({"depths": (), "num_heads": ()}, "one number of 1 or more per stage"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_images_that_cut_a_patch_are_refused():
    with pytest.raises(InputError, match="32 x 33 px is not a multiple of the patch, 2 px"):
        make().pyramid(torch.randn(1, 1, 32, 33))


def test_the_inverse_swin_doubles_the_grid_and_halves_the_channels():
    torch.manual_seed(0)
    head = InverseSwin(32, 3, (2, 1, 1), window=2).eval()
    x = torch.randn(2, 32, 3, 3)
    assert head(x).shape == (2, 8, 12, 12)
    assert (head.out_dim, head.upsample) == (8, 4)
    head(x).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    with pytest.raises(InputError, match="30 channels cannot be halved 2 times"):
        InverseSwin(30, 3, (1, 1, 1), window=2)


DEEP = {"patch_size": 2, "depths": (2, 3, 1), "num_heads": (1, 2, 2)}


@pytest.mark.parametrize("window", [4, 3, (4, 2, 2), 16])
@pytest.mark.parametrize("masks", ["one", "one per image"])
def test_visible_cells_are_encoded_as_if_masked_tokens_were_no_keys(window, masks):
    """GreenMIM's encoder, without computing on masked tokens: with shifted windows, whole and shrunk ones."""
    swin = make(image_size=48 if window == 3 else 32, window=window, **DEEP).double()
    tokens = swin.embed(torch.randn(3, 1, swin.image_size, swin.image_size, dtype=torch.float64))
    side = swin.image_size // swin.stride
    order = torch.rand(1 if masks == "one" else 3, side**2, generator=torch.Generator().manual_seed(0)).argsort(1)
    keep = order[:, : side**2 // 3]
    mask = torch.ones(len(keep), side**2, dtype=torch.bool).scatter(1, keep, False).view(-1, side, side)
    whole = swin.encode_mixed(tokens, mask).flatten(2).mT
    expected = whole.gather(1, keep.expand(3, -1).unsqueeze(-1).expand(-1, -1, swin.out_dim))
    assert torch.allclose(swin.encode_visible(tokens, keep), expected, rtol=0, atol=1e-12)


def test_tokens_of_mixed_images_attend_to_their_own_image_only():
    """By hand: the block's attention with one key at a time, and the softmax over those of the same image."""
    block = make(image_size=8, depths=(1,), num_heads=(1,)).double().body.layers[0].blocks[0]
    x, mixed = torch.randn(1, 4, 4, 8, dtype=torch.float64), torch.rand(1, 4, 4) < 0.5
    query, key, value = block.attn.qkv(block.norm1(x)).flatten(1, 2)[0].chunk(3, -1)
    scores = query @ key.T * block.attn.scale + block.attn._get_rel_pos_bias()[0, 0]
    same = mixed.flatten()[:, None] == mixed.flatten()
    weights = scores.exp() * same
    y = x + block.attn.proj(weights / weights.sum(1, keepdim=True) @ value).view_as(x)
    expected = y + block.mlp(block.norm2(y))
    assert torch.allclose(shifted_window_block(block, x, mixed), expected, rtol=0, atol=1e-12)


def test_visible_cells_train_with_and_without_checkpointing():
    swin = make(**DEEP).train()
    tokens = swin.embed(torch.randn(2, 1, 32, 32)).detach()
    keep, gradients = torch.tensor([[0, 3, 9]]), []
    for enable in (False, True):
        swin.zero_grad()
        swin.set_grad_checkpointing(enable)
        swin.encode_visible(tokens, keep).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in swin.named_parameters() if p.grad is not None})
    assert {name.split(".")[1] for name in gradients[0]} == {"layers", "norm"}
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-5) for name in gradients[0])


def test_a_quarter_of_the_cells_takes_a_quarter_of_the_computation():
    """Counted for Swin-B at 224 px and 12 of 49 cells, without values."""
    with torch.device("meta"):
        swin = Swin(SwinConfig(), image_size=224, in_channels=3)
        tokens, keep = torch.zeros(1, 56, 56, 128), torch.zeros(1, 12, dtype=torch.long)
        with FlopCounterMode(display=False) as visible:
            swin.encode_visible(tokens, keep)
        with FlopCounterMode(display=False) as whole:
            swin.encode(tokens)
    assert 0.24 < visible.get_total_flops() / whole.get_total_flops() < 0.26


def test_visible_cells_need_whole_cells():
    swin = make(**DEEP)
    with pytest.raises(InputError, match="16 x 18 patches does not consist of cells of 4 x 4"):
        swin.encode_visible(swin.embed(torch.zeros(1, 1, 32, 36)), torch.tensor([[0]]))


def test_windows_per_stage_and_no_shift():
    swin = make(image_size=64, window=(8, 4), shift=False)
    blocks = [block for stage in swin.body.layers for block in stage.blocks]
    assert [block.window_size for block in blocks] == [(8, 8), (8, 8), (4, 4), (4, 4)]
    tokens = swin.embed(torch.randn(1, 1, 64, 64))
    changed = tokens.clone()
    changed[:, :8, :8] += 1  # the first window of the first stage
    before, after = (swin.forward_layers(some, (1,))[0].dense for some in (tokens, changed))
    moved = (before != after).any(1)[0]
    assert moved[:8, :8].all()
    assert not moved[8:].any()
    assert not moved[:, 8:].any()
    swin.pyramid(torch.randn(1, 1, 70, 98))
    with pytest.raises(
        InputError, match=r"encoder\.window \[4, 4, 4\] must be one number, or one per stage of \[2, 2\]"
    ):
        make(window=(4, 4, 4))
    with pytest.raises(InputError, match=r"encoder\.window 5 does not divide the 8 x 8 grid of stage 1"):
        make(window=(4, 5))


def test_fixed_positions_are_added_at_every_size():
    swin = make(position="sincos-and-relative")
    positions = sincos_positions((16, 16), 8)[:, 1:].unflatten(1, (16, 16))
    plain = make()
    plain.load_state_dict({k: v for k, v in swin.state_dict().items() if "absolute" not in k})
    tokens = swin.embed(torch.randn(2, 1, 32, 32))
    assert torch.equal(swin.encode(tokens), plain.encode(tokens + positions))
    assert not swin.body.absolute_pos_embed.requires_grad
    keep = torch.arange(64).unsqueeze(0)
    assert torch.allclose(swin.encode_visible(tokens, keep).mT, swin.encode(tokens).flatten(2), atol=1e-5)
    larger = swin.pyramid(torch.randn(1, 1, 64, 48))
    assert [level.shape[2:] for level in larger] == [(32, 24), (16, 12)]
    again = make(image_size=64, position="sincos-and-relative")
    resized = resize_positions(swin.state_dict(), again)
    assert resized["body.absolute_pos_embed"].shape == (1, 1024, 8)


def test_the_norms_have_the_epsilon():
    swin = make(norm_eps=1e-3)
    assert {module.eps for module in swin.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-3}
    flat = swin.pyramid(torch.zeros(1, 1, 32, 32))[0]
    assert flat.var(1, correction=0).max() < 1
