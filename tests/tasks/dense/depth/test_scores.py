"""Depth scores and the scale-invariant loss, against hand-made values and plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mimbench.data.sources.depth_maps import DepthMapsSplit, DepthPair
from mimbench.errors import InputError
from mimbench_tasks.dense.depth.scores import average, check_region, region_mask, scale_invariant_loss, score_image

TRUTH = torch.tensor([[1.0, 2.0, 4.0], [0.0, 8.0, 20.0]])
"""0: no reading. 20: beyond the greatest depth, 10."""
GUESS = torch.tensor([[1.2, 2.6, 3.0], [5.0, 8.0, 9.0]])
"""Off by the factors 1.2, 1.3, 1.33 and 1."""


def test_hand_made_scores():
    scores = score_image(GUESS, TRUTH, 0.1, 10.0, "all")
    assert scores.delta1 == pytest.approx(50), "2 of 4 pixels are within 1.25"
    assert scores.rmse == pytest.approx(math.sqrt((0.2**2 + 0.6**2 + 1) / 4))
    assert scores.abs_rel == pytest.approx((0.2 + 0.3 + 0.25 + 0) / 4)


def test_exactly_1_25_does_not_count():
    truth, guess = torch.tensor([[1.0, 4.0]]), torch.tensor([[1.25, 5.0]])
    assert score_image(guess, truth, 0.1, 10.0, "all").delta1 == 0


def test_predictions_are_clamped_to_the_range():
    truth = torch.full((2, 2), 9.0)
    assert score_image(torch.full((2, 2), 50.0), truth, 0.1, 10.0, "all").rmse == pytest.approx(1)
    assert score_image(torch.full((2, 2), -3.0), truth, 0.1, 10.0, "all").rmse == pytest.approx(8.9)


def test_images_count_equally_whatever_they_hold():
    few = score_image(torch.ones(1, 1), torch.ones(1, 1), 0.1, 10.0, "all")
    many = score_image(torch.full((9, 9), 2.0), torch.ones(9, 9), 0.1, 10.0, "all")
    none = score_image(torch.ones(2, 2), torch.zeros(2, 2), 0.1, 10.0, "all")
    assert none is None
    mean, count = average([few, none, many], "the test split")
    assert (mean.delta1, mean.rmse, count) == (50, 0.5, 2)
    with pytest.raises(InputError, match=r"the test split: no image has a reading that is scored; see task\.region"):
        average([none], "the test split")


def test_regions_of_nyu():
    eigen = region_mask((480, 640), "eigen")
    assert (int(eigen.sum()), bool(eigen[45, 41]), bool(eigen[44, 41])) == (426 * 560, True, False)
    garg = region_mask((375, 1242), "garg")
    rows, columns = garg.any(1).nonzero().flatten(), garg.any(0).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1]) + 1) == (153, 371)
    assert (int(columns[0]), int(columns[-1]) + 1) == (44, 1197)
    assert region_mask((4, 5), "all").all()


def test_the_region_eigen_is_of_images_of_nyu():
    def split(*shapes):
        return DepthMapsSplit(Path(), [DepthPair("a", "b", shape) for shape in shapes], per_metre=1.0, max_depth=10.0)

    check_region(split((480, 640), (480, 640)), "eigen", "the test split")
    check_region(split((375, 1242)), "garg", "the test split")
    words = r"region eigen .* image 1 of the test split has 640 x 480 px; set task\.region to all or garg"
    with pytest.raises(InputError, match=words):
        check_region(split((480, 640), (640, 480)), "eigen", "the test split")


def test_the_loss_by_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    truth, guess = torch.rand(3, 4, 5, generator=generator) * 12, torch.rand(3, 4, 5, generator=generator) * 5 + 0.1
    truth[0, 0] = 0
    truth[2] = 0
    losses = []
    for one, other in zip(guess, truth, strict=True):
        errors = [
            math.log(p + 1e-3) - math.log(t + 1e-3)
            for p, t in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
            if 0.1 < t < 10
        ]
        if len(errors) < 2:
            losses.append(0.0)
            continue
        mean = sum(errors) / len(errors)
        variance = sum((error - mean) ** 2 for error in errors) / (len(errors) - 1)
        losses.append(math.sqrt(variance + 0.15 * mean**2))
    loss = scale_invariant_loss(guess, truth, 0.1, 10.0)
    assert float(loss) == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_the_loss_has_a_gradient_everywhere():
    truth = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]], [[3.0, 0.0]]])
    guess = truth.clamp(min=1.0).requires_grad_()
    scale_invariant_loss(guess, truth, 0.1, 10.0).backward()
    assert torch.isfinite(guess.grad).all(), "also where the prediction is perfect, or nothing is known"
    assert guess.grad[1:].abs().sum() == 0


def test_the_scale_of_a_whole_image_weighs_little():
    truth = torch.tensor([[[1.0, 2.0, 4.0]]])
    scaled = scale_invariant_loss(2 * truth, truth, 0.1, 10.0)
    assert float(scaled) == pytest.approx(math.sqrt(0.15) * math.log(2), rel=1e-2)
