"""Forms of masks, images and labels: what is wrong with a value."""

from __future__ import annotations

import pytest
import torch

from mimbench.contract.forms import describe_image_problem, describe_labels_problem, describe_mask_problem


@pytest.mark.parametrize(
    ("shape", "grid", "words"),
    [
        ((2, 8, 8), (8, 8), None),
        ((2, 4, 16), (8, 8), None),
        ((2, 5, 5), (8, 8), "has 5 x 5 cells, and the encoder has 8 x 8: neither is a multiple of the other"),
        ((2, 0, 8), (8, 8), "has 0 x 8 cells"),
        ((2, 2, 4, 4), (8, 8), "is torch.bool [2, 2, 4, 4] for 2 images; return bool [2, rows, columns]"),
        ((2, 2, 4, 4), (4, 8, 8), None),
        ((2, 3, 4, 4), (4, 8, 8), "has 3 x 4 x 4 cells, and the encoder has 4 x 8 x 8"),
        ((2, 8, 8), (4, 8, 8), "is torch.bool [2, 8, 8] for 2 images; return bool [2, frames, rows, columns]"),
    ],
)
def test_masks_have_the_axes_of_the_encoder_s_grid(shape, grid, words):
    problem = describe_mask_problem(torch.zeros(shape, dtype=torch.bool), 2, grid)
    assert problem is None if words is None else problem.startswith(words)


def test_masks_are_tensors_of_bool():
    assert describe_mask_problem(torch.zeros(2, 8, 8), 2, (8, 8)).startswith("is torch.float32 [2, 8, 8]")
    assert describe_mask_problem([True], 2, (8, 8)).startswith("is a list; return bool [2, rows, columns]")


def test_pixels_lie_within_their_range():
    image = torch.full((1, 2, 2), 0.5)
    assert describe_image_problem(image, 1, (0.0, 1.0)) is None
    assert describe_image_problem(image, 1, (0.0, 255.0)).endswith("set pixel_range = (0.0, 1.0)")
    assert describe_image_problem(image * float("nan"), 1, (0.0, 1.0)).startswith("has pixels from nan to nan")
    assert describe_image_problem(image, 1, (1.0, 0.0)).startswith("has pixels from 0.5 to 0.5")


def test_labels_are_indices_of_classes():
    assert describe_labels_problem(torch.arange(4), 4, 4) is None
    assert describe_labels_problem(torch.arange(4), 4, 3).startswith("run from 0 to 3, beyond 0 to 2 of the 3 classes")
    assert describe_labels_problem(torch.arange(4), 5, 4) == "are torch.int64 [4]; return int64 [5]"


@pytest.mark.parametrize(
    ("shape", "frames", "words"),
    [
        ((1, 8, 4, 4), 8, None),
        ((1, 8, 4, 4), 1, "has shape [1, 8, 4, 4], and frames is 1; set frames to 8, or return an image"),
        ((8, 1, 4, 4), 8, "has shape [8, 1, 4, 4], channels is 1 and frames is 8; return [1, 8, H, W]"),
        ((1, 4, 4), 8, "has shape [1, 4, 4], channels is 1 and frames is 8; return [1, 8, H, W]"),
        ((4, 4), 1, "has shape [4, 4], and channels is 1; return [1, H, W]"),
    ],
)
def test_clips_have_the_frames_of_their_dataset(shape, frames, words):
    assert describe_image_problem(torch.zeros(shape, dtype=torch.uint8), 1, (0.0, 255.0), frames) == words
