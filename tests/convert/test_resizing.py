"""Position tables at another image size."""

import pytest
import torch
from conftest import SWIN, VIT, encoder_of, params

from mimbench.convert import recognise, resized, to_encoder
from mimbench.convert.pieces import TABLE


@pytest.mark.parametrize("image_size", [16, 48])
def test_relative_tables_keep_the_class_tokens_rows(image_size):
    state = params("beit_vit_tiny")
    encoder = encoder_of("vit", VIT | {"layer_scale": 0.1}, image_size)
    key = f"rel_pos_bias.{TABLE}"
    loaded = to_encoder(state, recognise(state), encoder)
    table = loaded.state[f"body.{key}"]
    side = 2 * (image_size // 4) - 1
    assert table.shape == (side * side + 3, 4)
    assert torch.equal(table[-3:], state[key][-3:])
    # The centre is the distance zero at every size.
    torch.testing.assert_close(table[side * side // 2], state[key][225 // 2])
    assert loaded.changed[key] == f"resized from 228x4 to {side * side + 3}x4"


def test_absolute_positions_keep_the_class_tokens():
    state = params("mae_vit_tiny_rawpix")
    loaded = to_encoder(state, recognise(state), encoder_of("vit", VIT | {"position": "sincos"}, 48))
    positions = loaded.state["body.pos_embed"]
    assert positions.shape == (1, 145, 32)
    assert torch.equal(positions[:, 0], state["pos_embed"][:, 0])
    assert positions[:, 1:].mean().item() == pytest.approx(state["pos_embed"][:, 1:].mean().item(), abs=0.02)


def test_windows_of_another_size():
    state = params("simmim_swin_tiny")
    loaded = to_encoder(state, recognise(state), encoder_of("swin", SWIN | {"window": 5}, 160))
    assert loaded.state[f"body.layers.0.blocks.0.attn.{TABLE}"].shape == (81, 1)
    assert not loaded.missing


def test_own_weights_at_another_size_and_the_same():
    small, large = (encoder_of("vit", VIT, size) for size in (16, 32))
    state = small.state_dict()
    assert all(value is state[name] for name, value in resized(state, small).items())
    large.load_state_dict(resized(state, large))
    other = encoder_of("vit", VIT | {"embed_dim": 16}, 32)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(resized(state, other))
