"""Digits before stripes: shares are exact, parts are disjoint, and stripes say nothing where nothing is planted."""

from __future__ import annotations

import numpy as np
import pytest

from mimbench.data.sources.striped_digits import StripedDigits, StripedDigitsConfig
from mimbench.testing import dataset_suite, parametrize_checks

SMALL = {"train_limit": 64, "test_limit": 32, "validation_limit": 32}


def make(cache, **options) -> StripedDigits:
    return StripedDigits(StripedDigitsConfig(**options), cache)


@parametrize_checks(dataset_suite(StripedDigits, SMALL))
def test_it_passes_the_checks_for_datasets(check):
    check()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95, 1.0])
def test_shares_are_exact(cache, correlation):
    dataset = make(cache, correlation=correlation)
    sizes = {"train": (1800, correlation), "test": (600, 0.5), "validation": (600, 0.5)}
    for name, (size, share) in sizes.items():
        split = dataset.split(name)
        assert len(split) == size
        for label in (0, 1):
            stripes = split.attributes["stripes"][split.labels == label]
            assert len(stripes) == size / 2
            assert (stripes == label).float().mean() == pytest.approx(share)


def test_the_same_digits_are_in_the_same_part_whatever_the_stripes(cache):
    plain, striped = (make(cache, correlation=share, contrast=0.0, seed=0) for share in (0.5, 1.0))
    for name in plain.parts:
        assert (plain.split(name).images == striped.split(name).images).all()


def test_no_digit_is_in_two_parts(cache):
    digits = make(cache, contrast=0.0)
    shapes = [{(image > 150).numpy().tobytes() for image in digits.split(name).images} for name in digits.parts]
    assert len(set.union(*shapes)) == sum(map(len, shapes))


def test_stripes_are_horizontal_or_vertical(cache):
    split = make(cache, ink=0.0, contrast=0.5).split("train")
    images = split.images[:, 0].double() / 255
    along_rows, along_columns = images.mean(1).std(1), images.mean(2).std(1)
    assert ((along_rows > along_columns).numpy() == (split.attributes["stripes"] == 1).numpy()).all()
    assert images.mean().item() == pytest.approx(0.3, abs=0.01)
    assert np.ptp(images.mean((0, 1)).numpy()) < 0.05, "the phase is drawn for each image"


def test_options_shape_the_content(cache):
    assert make(cache).fingerprint() == make(cache).fingerprint()
    changes = ({"correlation": 0.9}, {"contrast": 0.2}, {"ink": 0.5}, {"seed": 1}, {"validation_limit": 10})
    assert len({make(cache, **change).fingerprint() for change in ({}, *changes)}) == 6
