"""Masks and patches of clips: grids of frames, rows and columns."""

from __future__ import annotations

import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import (
    block_mask,
    grid_mask,
    mask_at_pixels,
    mean_over_masked,
    multi_block_mask,
    patchify,
    random_mask,
    random_order,
    replace_masked,
    resize_mask,
    square_mask,
    tube_mask,
    unpatchify,
    visible_indices,
)

GRID = (4, 6, 8)


@pytest.mark.parametrize("rng", ["torch", "official"])
def test_random_masks_have_an_exact_count_over_all_frames(rng):
    mask = random_mask(40, GRID, 0.9, seeded(), rng=rng)
    assert mask.shape == (40, *GRID)
    assert (mask.flatten(1).sum(1) == 173).all()  # of 192, rounded up
    in_frames = mask.flatten(2).sum(2)
    assert in_frames.min() < in_frames.max()
    assert random_order(3, GRID, seeded()).sort().values.equal(torch.arange(192).expand(3, -1))


def test_a_mask_is_resized_along_every_axis():
    mask = tube_mask(2, GRID, 0.5, seeded())
    finer = resize_mask(mask, (8, 12, 16))
    assert torch.equal(finer[:, ::2, ::2, ::2], mask)
    assert torch.equal(resize_mask(finer, GRID), mask)
    pixels = mask_at_pixels(mask, torch.zeros(2, 3, 8, 24, 32))
    assert pixels.shape == (2, 1, 8, 24, 32)
    assert pixels.float().mean() == mask.float().mean()
    with pytest.raises(InputError, match="a mask of 4 x 6 x 8 cells has other axes than a 6 x 8 grid"):
        resize_mask(mask, (6, 8))


def test_tokens_and_errors_of_clips_follow_the_mask():
    mask = random_mask(2, GRID, 0.5, seeded())
    tokens = torch.randn(2, *GRID, 3, generator=seeded())
    replaced = replace_masked(tokens, mask, torch.zeros(1, 1, 1, 3))
    assert torch.equal(replaced, tokens * ~mask.unsqueeze(-1))
    errors = torch.rand(2, *GRID, generator=seeded())
    torch.testing.assert_close(mean_over_masked(errors, mask), errors[mask].mean())
    assert torch.equal(visible_indices(mask)[0], (~mask[0].flatten()).nonzero().flatten())
    with pytest.raises(ValueError, match=r"needs values \[B, T', h, w\], one per cell"):
        mean_over_masked(errors.unsqueeze(-1), mask)


def test_cubes_hold_frames_rows_columns_and_channels_in_this_order():
    videos = torch.randn(2, 3, 4, 8, 12, generator=seeded())
    cubes = patchify(videos, 4, 2)
    assert cubes.shape == (2, 2, 2, 3, 2 * 4 * 4 * 3)
    expected = videos[1, :, 2:4, 4:8, 8:12].permute(1, 2, 3, 0).flatten()
    assert torch.equal(cubes[1, 1, 1, 2], expected)
    assert torch.equal(unpatchify(cubes, 4, 2), videos)
    frames = patchify(videos, 4)
    assert torch.equal(frames[:, 3], patchify(videos[:, :, 3], 4))
    assert torch.equal(unpatchify(frames, 4), videos)


@pytest.mark.parametrize(
    "draw",
    [
        lambda grid: square_mask(2, grid, 0.5, seeded()),
        lambda grid: grid_mask(2, grid, seeded()),
        lambda grid: block_mask(2, grid, 20, seeded(), min_block=4),
        lambda grid: multi_block_mask(2, grid, seeded()),
    ],
)
def test_masks_of_rows_and_columns_refuse_frames(draw):
    with pytest.raises(
        InputError, match="needs a grid of rows and columns, not 4 x 6 x 8; clips take random, tube or cuboid"
    ):
        draw(GRID)
