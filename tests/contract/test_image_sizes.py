"""When each size of `pretrain.image_sizes` begins."""

from __future__ import annotations

import re

import pytest

from mimbench.contract import PretrainConfig
from mimbench.contract.image_sizes import first_epochs
from mimbench.errors import InputError

BUDGET = {"epochs": 4, "batch_size": 8, "base_lr": 0.1}


@pytest.mark.parametrize(
    ("shares", "steps", "steps_per_epoch", "epochs"),
    [
        ((0, 0.5), 20, 5, [0, 2]),
        ((0, 0.4), 20, 5, [0, 2]),  # 1.6 epochs
        ((0, 0.7), 50, 5, [0, 7]),  # 7.000000000000001 epochs
        ((0, 0.1, 0.3), 50, 5, [0, 1, 3]),
        ((0, 0.5), 12, 5, [0, 2]),  # 2.4 epochs: step 6, and the next epoch begins at step 10
        ((0,), 3, 5, [0]),
    ],
)
def test_sizes_change_at_the_first_epoch_from_their_share_on(shares, steps, steps_per_epoch, epochs):
    sizes = tuple((share, 8 * (index + 1)) for index, share in enumerate(shares))
    starts = first_epochs(sizes, steps=steps, steps_per_epoch=steps_per_epoch)
    assert starts == [(epoch, size) for epoch, (_, size) in zip(epochs, sizes, strict=True)]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((0, 8), (0.9, 16)), "16 px, from 0.9 of the training on, would never be used"),
        (((0, 8), (0.3, 16), (0.4, 32)), "16 px, from 0.3 of the training on, would never be used"),
    ],
)
def test_a_size_that_would_never_be_used_is_refused(sizes, message):
    with pytest.raises(InputError, match=f"pretrain.image_sizes: {message}.*there are 2; move the share"):
        first_epochs(sizes, steps=10, steps_per_epoch=5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[0.1, 8]], "the first share is 0.1; begin with [0, px]"),
        ([[0, 8], [0.5, 16], [0.5, 8]], "share 0.5 follows share 0.5; let the shares rise"),
        ([[0, 8], [0.5, 8]], "8 px follow 8 px at share 0.5"),
        ([[0, True]], "valid integer"),
        ([[False, 8]], "valid number"),
        ([[0, 2]], "greater than or equal to 4"),
        ([[0, 8], [1, 16]], "less than 1"),
        ([0, 8], "valid tuple"),
    ],
)
def test_impossible_pairs_are_refused(sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PretrainConfig(image_sizes=sizes, **BUDGET)


def test_unset_sizes_leave_fingerprints_as_they_are():
    assert "image_sizes" not in PretrainConfig(**BUDGET).shaping()
    assert PretrainConfig(image_sizes=[[0, 8]], **BUDGET).shaping()["image_sizes"] == [[0.0, 8]]
