"""Masks of filtered noise, against the filters written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.masks import noise_mask
from mimbench.masks.noise import coloured_noise

SIGMA = (1.0, 2.0)
COLOURS = ("red", "green", "blue", "purple")


def gaussian(noise: np.ndarray, sigma: float, row: int, column: int) -> float:
    """The filtered value at one cell, by a sum over its neighbours."""
    reach = math.ceil(4 * sigma)
    total = weight = 0.0
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            here = math.exp(-(y * y + x * x) / (2 * sigma * sigma))
            total += here * noise[row + y, column + x]
            weight += here
    return total / weight


def test_each_colour_is_the_band_of_its_filters():
    white = torch.randn(2, 5 + 16, 6 + 16, generator=seeded(3)).numpy().astype(float)
    drawn = {colour: coloured_noise(2, (5, 6), seeded(3), colour, SIGMA).numpy() for colour in COLOURS}
    for sample in range(2):
        for row in range(5):
            for column in range(6):
                at = white[sample], row + 8, column + 8
                below, up_to_narrow = gaussian(at[0], 2.0, *at[1:]), gaussian(at[0], 1.0, *at[1:])
                value = at[0][at[1:]]
                expected = (below, up_to_narrow - below, value - up_to_narrow, value - up_to_narrow + below)
                for colour, number in zip(COLOURS, expected, strict=True):
                    assert drawn[colour][sample, row, column] == pytest.approx(number, abs=1e-5), colour


def test_the_three_bands_add_up_to_white_noise():
    red, green, blue, purple = (coloured_noise(3, (8, 8), seeded(), colour, SIGMA) for colour in COLOURS)
    white = torch.randn(3, 24, 24, generator=seeded())[:, 8:-8, 8:-8]
    assert torch.allclose(red + green + blue, white, atol=1e-6)
    assert torch.allclose(red + blue, purple, atol=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_lowest_values_are_masked(colour):
    mask = noise_mask(4, (7, 7), 0.75, seeded(), colour=colour, rounding="mae")
    assert mask.dtype == torch.bool
    assert mask.flatten(1).sum(1).tolist() == [37] * 4
    values = coloured_noise(4, (7, 7), seeded(), colour, SIGMA)
    for one, masked in zip(values, mask, strict=True):
        assert one[masked].max() < one[~masked].min()


def test_low_frequencies_make_large_regions_and_high_ones_scattered_cells():
    equal_neighbours = {}
    for colour in COLOURS:
        mask = noise_mask(2000, (8, 8), 0.75, seeded(), colour=colour)
        equal_neighbours[colour] = (mask[:, :, 1:] == mask[:, :, :-1]).float().mean().item()
        if colour != "red":  # long waves have their extremes at borders more often
            assert (mask.float().mean(0) - 0.75).abs().max() < 0.05
    # Of random masks, 0.75^2 + 0.25^2 = 0.625 of the neighbours are alike.
    assert equal_neighbours["red"] > equal_neighbours["green"] > 0.7
    assert max(equal_neighbours["blue"], equal_neighbours["purple"]) < 0.6


def test_masks_depend_on_the_generator_only():
    first = noise_mask(2, (8, 8), 0.6, seeded(1))
    torch.manual_seed(5)
    assert torch.equal(first, noise_mask(2, (8, 8), 0.6, seeded(1)))
    assert not torch.equal(first, noise_mask(2, (8, 8), 0.6, seeded(2)))


@pytest.mark.parametrize("colour", COLOURS)
def test_masks_do_not_depend_on_autocast(colour):
    exact = coloured_noise(16, (14, 14), seeded(), colour, SIGMA)
    masks = noise_mask(16, (14, 14), 0.6, seeded(), colour=colour)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(coloured_noise(16, (14, 14), seeded(), colour, SIGMA), exact)
        assert torch.equal(noise_mask(16, (14, 14), 0.6, seeded(), colour=colour), masks)


@pytest.mark.parametrize(
    ("grid", "ratio", "sigma", "message"),
    [
        ((8, 8), 0.5, (2.0, 0.5), "sigmas that rise from above 0, not 2 and 0.5"),
        ((8, 8), 0.5, (0.0, 1.0), "sigmas that rise from above 0"),
        ((4, 8, 8), 0.5, SIGMA, "a mask of filtered noise needs a grid of rows and columns"),
        ((2, 2), 0.1, SIGMA, None),
        ((2, 2), 0.9, SIGMA, "masks everything of 4 cells"),
    ],
)
def test_impossible_masks_are_refused(grid, ratio, sigma, message):
    if message is None:
        assert noise_mask(1, grid, ratio, seeded(), sigma=sigma).sum() == 1
        return
    with pytest.raises(InputError, match=message):
        noise_mask(1, grid, ratio, seeded(), sigma=sigma)
