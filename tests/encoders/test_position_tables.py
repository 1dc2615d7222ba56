"""Position tables at another image size."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator, make_interp_spline
from scipy.optimize import brentq

from helpers.checkpoints import SWIN, VIT, encoder_of, params
from mimbench.convert import recognise, resize_positions, to_encoder
from mimbench.convert.file_tensors import TABLE
from mimbench.encoders.position_tables import resample_table
from mimbench.errors import InputError


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


@pytest.mark.parametrize(("old", "new", "extra"), [(6, 7, 0), (14, 32, 3), (14, 24, 3)])
def test_relative_tables_are_cubic_splines_over_growing_distances(old, new, extra):
    """Against another spline class of scipy's, and distances solved for instead of bisected to 1e-6 per step."""
    side, new_side = 2 * old - 1, 2 * new - 1
    table = torch.randn(side * side + extra, 2, generator=torch.Generator().manual_seed(0))
    resized = resample_table(table, (new_side, new_side), extra)
    factor = brentq(lambda q: sum(q**step for step in range(old - 1)) - (new - 1), 1.01, 1.5)
    steps = np.cumsum([factor**step for step in range(old - 1)])
    places = np.concatenate((-steps[::-1], [0], steps))
    assert places[-1] == pytest.approx(new - 1)
    at = np.arange(1 - new, new).clip(places[0], places[-1])
    grid = table[: side * side].double().numpy().reshape(side, side, 2)
    expected = make_interp_spline(places, make_interp_spline(places, grid, axis=0)(at), axis=1)(at)
    np.testing.assert_allclose(
        resized[: new_side * new_side].numpy(), expected.reshape(-1, 2), atol=2e-3
    )  # distances are bisected to 1e-6 per step
    assert torch.equal(resized[new_side * new_side :], table[side * side :])
    linear = RegularGridInterpolator((places, places), grid)(np.stack(np.meshgrid(at, at, indexing="ij"), -1))
    assert np.abs(expected - linear).max() > 0.1


def test_tables_of_the_smallest_windows():
    """One token knows the distance zero alone; three distances bear no cubic. At twice the size, ends are repeated."""
    one = resample_table(torch.tensor([[2.0], [7.0]]), (3, 5), 1)
    assert one.flatten().tolist() == [2.0] * 15 + [7.0]
    two = resample_table(torch.arange(9.0)[:, None], (5, 5), 0).view(5, 5)
    torch.testing.assert_close(two[:, 2], torch.tensor([1.0, 1.0, 4.0, 7.0, 7.0]))
    assert resample_table(torch.zeros(28, 3, device="meta"), (7, 7), 3).shape == (52, 3)
    half = resample_table(torch.randn(28, 3).half(), (7, 7), 3)
    assert (half.dtype, half.shape) == (torch.float16, (52, 3))


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
    assert all(value is state[name] for name, value in resize_positions(state, small).items())
    large.load_state_dict(resize_positions(state, large))
    other = encoder_of("vit", VIT | {"embed_dim": 16}, 32)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(resize_positions(state, other))


def cubic(distance, a=-0.75):
    d = abs(distance)
    return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (12, 12)])
def test_dinos_resizing_has_a_scale_that_is_a_tenth_of_a_patch_larger(grid):
    """Output i reads the table at (i + 0.5) N / (n + 0.1) - 0.5, by torch's cubic convolution, a = -0.75."""
    encoder = encoder_of("vit", VIT | {"position": "learned", "position_resize": "dino"}, 32)
    table = torch.randn(8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder.body.pos_embed[0, 1:] = table[:, None].expand(8, 8).flatten()[:, None]
        resized = encoder.positions.absolute(encoder.body, grid)
    assert torch.equal(resized[:, :1], encoder.body.pos_embed[:, :1])
    for row in range(grid[0]):
        place = (row + 0.5) * 8 / (grid[0] + 0.1) - 0.5
        near = [int(np.floor(place)) + step for step in (-1, 0, 1, 2)]
        value = sum(cubic(place - one) * table[min(max(one, 0), 7)].item() for one in near)
        assert resized[0, 1:].unflatten(0, grid)[row, 0, 0].item() == pytest.approx(value, abs=1e-4)
    plain = encoder_of("vit", VIT | {"position": "learned"}, 32)
    assert plain.positions.absolute(plain.body, grid).shape == resized.shape


def test_resizing_is_refused_for_positions_without_a_table():
    with pytest.raises(InputError, match=r'position_resize does nothing for encoder\.position "rope"'):
        encoder_of("vit", VIT | {"position": "rope", "position_resize": "dino"}, 32)
