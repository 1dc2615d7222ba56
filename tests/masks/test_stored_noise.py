"""Masks from stored patterns: each is a window of one of them, mirrored or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.masks import stored_noise_mask
from mimbench.shared_batch import sharing_batch


def stored(folder, patterns, name="noise.npz"):
    save = np.savez if name.endswith("npz") else np.save
    save(folder / name, patterns)
    return folder / name


def window_masks(pattern, grid, visible):
    """Every mask that ColorMAE's code can cut out of a pattern: the highest values of a window stay visible."""
    masks = set()
    for top in range(pattern.shape[0] - grid[0] + 1):
        for left in range(pattern.shape[1] - grid[1] + 1):
            window = pattern[top : top + grid[0], left : left + grid[1]]
            highest = np.sort(window, axis=None)[-visible:]
            mask = ~np.isin(window, highest)
            masks |= {mask[::rows, ::columns].tobytes() for rows in (1, -1) for columns in (1, -1)}
    return masks


@pytest.mark.parametrize("name", ["noise.npz", "noise.npy"])
def test_each_mask_hides_the_lowest_values_of_a_window(name, tmp_path):
    patterns = np.random.default_rng(0).normal(size=(2, 5, 6))
    masks = stored_noise_mask(400, (4, 3), 0.75, seeded(), stored(tmp_path, patterns, name), rounding="mae")
    assert masks.dtype == torch.bool
    drawn = {mask.numpy().tobytes() for mask in masks}
    possible = window_masks(patterns[0], (4, 3), 3) | window_masks(patterns[1], (4, 3), 3)
    assert drawn <= possible
    assert len(drawn) > 0.95 * len(possible)  # each of 64 windows and mirrors has 400 chances
    again = stored_noise_mask(400, (4, 3), 0.75, seeded(), tmp_path / name, rounding="mae")
    assert torch.equal(again, masks)
    assert not torch.equal(stored_noise_mask(400, (4, 3), 0.75, seeded(1), tmp_path / name, rounding="mae"), masks)


def test_processes_share_the_masks_of_a_batch(tmp_path):
    file = stored(tmp_path, np.random.default_rng(0).normal(size=(9, 8, 8)))
    whole = stored_noise_mask(6, (4, 4), 0.5, seeded(), file)
    shares = []
    for rank in range(2):
        with sharing_batch(rank, 2):
            shares.append(stored_noise_mask(3, (4, 4), 0.5, seeded(), file))
    assert torch.equal(torch.cat(shares), whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((8, 8)), r"holds an array \[8, 8\] of float64: set noise_file to a .npz or .npy file"),
        (np.full((2, 8, 8), np.nan), r"holds an array \[2, 8, 8\] of float64"),
        (np.zeros((2, 8, 8), dtype=bool), "of bool"),
        (np.zeros((0, 8, 8)), r"\[0, 8, 8\]"),
        (np.zeros((2, 3, 8)), "are 3 x 8, smaller than the 4 x 4 patches of a mask"),
        (np.array([object()]), "cannot be read as numpy's arrays"),
        (b"no archive", "cannot be read as numpy's arrays"),
        (b"", "cannot be read as numpy's arrays"),
        (b"PK\x03\x04 cut off", "cannot be read as numpy's arrays"),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "noise.npz").write_bytes(content)
    else:
        stored(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        stored_noise_mask(1, (4, 4), 0.5, seeded(), tmp_path / "noise.npz")
    assert "\n" not in str(error.value)


def test_clips_are_refused(tmp_path):
    file = stored(tmp_path, np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match="a mask of stored noise needs a grid of rows and columns"):
        stored_noise_mask(1, (2, 4, 4), 0.5, seeded(), file)
