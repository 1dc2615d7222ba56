"""Numbers of datasets, whether or not they are on this machine."""

from __future__ import annotations

import pytest

from mimbench.data import open_dataset
from mimbench.errors import InputError
from mimbench.harness.forecast.sizes import AbsentData, count_images, sizes_of

STAND_IN = AbsentData(images=7, classes=3)


def test_given_numbers_are_of_absent_datasets_alone():
    absent = sizes_of("folder", {"channels": 1}, "data", STAND_IN)
    assert (absent.train, absent.test, absent.classes, absent.channels) == (7, 0, 3, 1)
    published = sizes_of("imagenet", {}, "data", STAND_IN)
    assert (published.train, published.classes) == (1_281_167, 1000)
    here = sizes_of("mnist5k", {"train_limit": 100}, "data", STAND_IN)
    assert (here.train, here.classes, here.channels) == (100, 10, 1)
    STAND_IN.require_use({"imagenet": published, "folder": absent})
    with pytest.raises(InputError, match="those of imagenet, mnist5k are known: leave them out"):
        STAND_IN.require_use({"imagenet": published, "mnist5k": here})


def test_validation_images_are_no_training_images():
    sizes = sizes_of("imagenet", {"validation_share": 0.1}, "data", AbsentData())
    assert (sizes.train, sizes.test) == (1_281_167 - 128_117, 128_117)


def test_scenes_that_are_counted_have_their_usual_side(tmp_path):
    dataset = open_dataset("digit-scenes", {"train_scenes": 3, "test_scenes": 2, "size": 64}, tmp_path)
    sizes = count_images(dataset)
    assert (sizes.train, sizes.test, sizes.classes, sizes.side) == (3, 2, 10, 64)
