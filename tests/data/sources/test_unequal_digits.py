"""Unequal digits: shares are exact, group B is inverted and turned, and the digits do not depend on the share."""

from __future__ import annotations

import pytest
import torch

from mimbench.data.sources.embedded import EmbeddedConfig, MNIST5k
from mimbench.data.sources.unequal_digits import UnequalDigits, UnequalDigitsConfig
from mimbench.testing import dataset_suite, parametrize_checks


def make(cache, **options) -> UnequalDigits:
    return UnequalDigits(UnequalDigitsConfig(**options), cache)


@parametrize_checks(dataset_suite(UnequalDigits, {"train_limit": 64, "test_limit": 32}))
def test_it_passes_the_checks_for_datasets(check):
    check()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_shares_are_exact_in_each_class(cache, share):
    dataset = make(cache, share=share)
    for name, size, expected in (("train", 2600, share), ("test", 1000, 0.5)):
        split = dataset.split(name)
        assert len(split) == size
        for label in range(10):
            of_class = split.attributes["group"][split.labels == label]
            assert abs(int(of_class.sum()) - expected * len(of_class)) <= 1
        assert int(split.attributes["group"].sum()) == round(expected * size)


def upright(split) -> torch.Tensor:
    """Images with those of group B turned back and inverted back."""
    images, of_b = split.images.clone(), split.attributes["group"] == 1
    images[of_b] = torch.rot90(255 - images[of_b], -1, (2, 3))
    return images


def test_the_digits_are_the_same_whatever_the_share(cache):
    splits = [make(cache, share=share).split("train") for share in (0.0, 0.1, 1.0)]
    assert (upright(splits[1]) == splits[0].images).all()
    assert (upright(splits[2]) == splits[0].images).all()
    assert (splits[0].labels == splits[2].labels).all()
    plain = {image.numpy().tobytes() for image in MNIST5k(EmbeddedConfig(), cache).split("train").images}
    assert {image.numpy().tobytes() for image in splits[0].images} <= plain
    assert splits[2].images.double().mean() > 200 > 50 > splits[0].images.double().mean(), "group B is bright"


def test_options_shape_the_train_split_alone(cache):
    one, other = make(cache), make(cache, share=0.1)
    assert one.fingerprint() != other.fingerprint()
    assert (one.split("test").images == other.split("test").images).all()
    assert make(cache, seed=1).fingerprint() != one.fingerprint()
