"""Planted digits: members and others are disjoint, copies are counted, a reference has seen none of them."""

from __future__ import annotations

import pytest

from mimbench.data.sources.planted_digits import PlantedDigits, PlantedDigitsConfig
from mimbench.errors import InputError
from mimbench.testing import dataset_suite, parametrize_checks

SMALL = {"members": 60, "non_members": 40, "codes": 2, "unseen_codes": 16}


def make(cache, **options) -> PlantedDigits:
    return PlantedDigits(PlantedDigitsConfig(**options), cache)


def images_of(split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images]


@parametrize_checks(dataset_suite(PlantedDigits, SMALL))
def test_it_passes_the_checks_for_datasets(check):
    check()


def test_canaries_are_less_than_five_percent_and_as_often_in_the_train_split_as_they_say(cache):
    dataset = make(cache)
    train, test, codes = (dataset.split(name) for name in dataset.parts)
    assert (len(train), len(test), len(codes)) == (2084, 1000, 12 + 256)
    assert train.attributes["code"].double().mean() < 0.05
    pixels = images_of(train)
    for image, copies in zip(images_of(codes), codes.attributes["copies"].tolist(), strict=True):
        assert pixels.count(image) == copies
    assert sorted(codes.attributes["copies"].tolist())[256:] == [1] * 4 + [4] * 4 + [16] * 4
    assert len(set(images_of(codes))) == len(codes)
    assert not set(images_of(test)) & set(pixels)


def test_members_and_others_are_in_random_order(cache):
    dataset = make(cache)
    for name in ("train", "test"):
        labels = dataset.split(name).labels
        digits = labels[labels < 10]
        assert 0.05 < (digits[1:] == digits[:-1]).double().mean() < 0.15, "sorted digits would be an attack"
    shares = [dataset.split(name).labels.bincount(minlength=11)[:10].double() for name in ("train", "test")]
    first, second = (share / share.sum() for share in shares)
    assert (first - second).abs().max() < 0.04


def test_a_reference_has_seen_no_image_of_the_others(cache):
    dataset, reference = make(cache, **SMALL), make(cache, **SMALL, reference=True)
    seen = set(images_of(reference.split("train")))
    assert not seen & {*images_of(dataset.split("train")), *images_of(dataset.split("test"))}
    assert not seen & set(images_of(dataset.split("codes")))
    assert images_of(reference.split("test")) == images_of(dataset.split("test"))


@pytest.mark.parametrize("seed", range(8))
def test_no_two_codes_are_equal_even_if_few_are_possible(cache, seed):
    """65,536 codes are possible: 8 seeds of 4,000 draws with repetition would have equal ones nearly surely."""
    many = {**SMALL, "cell": 7, "unseen_codes": 4000, "seed": seed}
    dataset, reference = make(cache, **many), make(cache, **many, reference=True)
    codes, other = (images_of(one.split("codes")) for one in (dataset, reference))
    assert len(set(codes)) == len(codes)
    assert codes[6:] == other[6:], "the unseen codes are the same"
    assert len({*codes, *other}) == len(codes) + 6


def test_more_codes_than_squares_can_make_are_refused(cache):
    with pytest.raises(InputError, match=r"draws 40,012 different codes, and squares of 7 px make 65,536; lower codes"):
        make(cache, **{**SMALL, "cell": 7, "unseen_codes": 40_000})
    with pytest.raises(ValueError, match="cell"):
        make(cache, **SMALL, cell=14)


def test_options_that_do_not_fit_are_refused(cache):
    with pytest.raises(InputError, match=r"needs 5,500 digits and has 5,000; lower members or non_members"):
        make(cache, members=2000, non_members=1500, reference=True)
    with pytest.raises(ValueError, match="copies must be 1 or more, and differ"):
        make(cache, copies=(4, 4))
