"""One digit among clutter: its mask is known, and neither brightness nor place points at it."""

from __future__ import annotations

import pytest
import torch

from mimbench.data.pipeline.subsets import subset
from mimbench.data.sources.solo_scenes import SoloScenes, SoloScenesConfig
from mimbench.testing import dataset_suite, parametrize_checks
from mimbench_tasks.attribution import maps, scoring

SMALL = {"train_scenes": 40, "test_scenes": 20}


def make(cache, **options) -> SoloScenes:
    return SoloScenes(SoloScenesConfig(**(SMALL | options)), cache)


@parametrize_checks(dataset_suite(SoloScenes, SMALL))
def test_it_passes_the_checks_for_datasets(check):
    check()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    split = make(tmp_path_factory.mktemp("cache"), test_scenes=400).split("test")
    return split.images / 255, split.object_masks


def test_brightness_and_place_point_at_the_object_as_often_as_chance(scenes):
    """The acceptance test of the dataset: within 10 points, for brightness per pixel and averaged over up to 7 px."""
    images, masks = scenes
    noise = scoring.uniform_noise(0, range(len(images)), masks[0].numel())
    chance = 100 * scoring.widened(masks, 2).double().mean().item()
    contrast, brightness = maps.intensity_map(images), images.mean(1)
    coarse = [maps.coarsened(one, (side, side)) for one in (contrast, brightness, -brightness) for side in (14, 7, 4)]
    for control in (contrast, brightness, -brightness, maps.centre_map(images), *coarse):
        pointing = 100 * scoring.points_at(scoring.ranked(control, noise), masks, 2).double().mean().item()
        assert pointing == pytest.approx(chance, abs=10)


def test_the_mask_is_where_the_digit_is(scenes):
    images, masks = scenes
    contrast = (images[:, 0] - 0.5).abs()
    assert contrast[masks].mean() > 0.25
    assert contrast[~masks].mean() < 0.15
    assert 0.03 < masks.double().mean() < 0.12


def test_digits_are_bright_or_dark(scenes):
    images, masks = scenes
    is_bright = torch.stack([image[mask].mean() > 0.5 for image, mask in zip(images[:, 0], masks, strict=True)])
    assert 0.4 < is_bright.double().mean() < 0.6


def test_masks_go_with_their_images(cache):
    split = make(cache).split("test")
    chosen = subset(split, [3, 1])
    assert torch.equal(chosen.object_masks, split.object_masks[[3, 1]])


def test_a_scene_does_not_depend_on_how_many_there_are(cache):
    few, many = make(cache, test_scenes=5).split("test"), make(cache, test_scenes=9).split("test")
    assert torch.equal(few.images, many.images[:5])


def test_options_shape_the_content(cache):
    changes = ({}, {"seed": 1}, {"clutter": 3}, {"digits": (1, 7)}, {"scale": (0.5, 0.6)}, {"size": 32})
    assert len({make(cache, **change).fingerprint() for change in changes}) == len(changes)
    with pytest.raises(ValueError, match="rising numbers from 0 to 9"):
        SoloScenesConfig(digits=(3, 3))
